//! What threads share, tried in every order of them by `loom`, and under stress.
//!
//! Every place where two threads touch the same memory without a lock around it, and every lock that more hangs on
//! than what it guards. What tries it: `rounds`, `whole` and `told`, in every order; `stress` and `reloads`, on real
//! threads.
//!
//! | what | who writes, who reads | why its ordering is enough | tried by |
//! |---|---|---|---|
//! | `aggregate::cells`, a number | its worker; scrapes, the sweep | `Relaxed`: a number by itself; what must agree is derived from one | `whole`, `stress` |
//! | the same, from series to series | the sweep clears, another worker gets it | under the store's lock, once all have forgotten (next line) | `whole`, `stress` |
//! | `aggregate::grace::rounds` | the sweep: round; workers: marks | fences between own write and other's read; marks by `Release` and `Acquire` | `rounds`, `whole` |
//! | `aggregate::cells`, a gauge | all workers; scrapes | one read-modify-write, or the last store wins | `whole` |
//! | `aggregate::cells`, list of chunks | a worker that makes one; scrapes | a lock; a writer keeps its own list of those it has | `whole` |
//! | `aggregate::sketch` | its worker; scrapes | sequence lock: two fences, `Acquire` and `Release` on the version | `whole`, `stress` |
//! | a native bucket and the count | the same | weight by `Release`, behind the count; read before it, behind an `Acquire` fence | `whole`, `reloads` |
//! | `aggregate::arena`, budget | workers; whoever has the store's lock | `Relaxed`: a limit that each worker may pass by a run | its own tests |
//! | `aggregate::Store`: waiting, time | scrapes, sweeps, workers | `Relaxed`: hints, each by itself | - |
//! | `pipeline::Rules` | a reload; workers | arc-swap; a store that knows the generation, and rounds for what is replaced | `whole`, `reloads` |
//! | `listen::asked` | whoever asks; a worker | wish `Relaxed`: what it is about is under a lock; emptied by `Release` and `Acquire` | `told` |
//! | `command::log::waiting` | whoever logs; its thread | a lock and a condition | `told` |
//! | `insight::distinct` | its worker; scrapes | a slice's number by `Release` behind clearing it, and `Acquire` | `told` |
//! | `telemetry`: books of all kinds | one writer each, or additions; scrapes | `Relaxed`: counts by themselves, all current at rest | `reloads` |
//! | `listen::kernel`, drops | whoever looks | one read-modify-write, which knows old news | its own tests |
//! | `expose::lifecycle`, `expose::http` | the main thread's tasks | phase and tickets by read-modify-write; what they see is on one thread | their own tests |
//! | `insight::heavy`, `telemetry::refusals`, quotas | workers; scrapes | a lock that a worker holds or tries for a moment; `governor`'s own | their own tests |
//!
//! In the models preemptions are bounded, to three or four in `rounds` and `told`, to one or two in `whole`. Loom knows
//! sequential consistency of fences alone, and does not see into `arc-swap` and other crates.
//!
//! Faults that were put into the program by hand, and which model said so:
//!
//! | what was broken | what failed |
//! |---|---|
//! | rounds: either fence left out; marks stored `Relaxed` | four of `rounds`, or three |
//! | sweep: does not wait for workers | `a_series_that_expires_..`, `the_cells_of_a_series_that_expired_..` |
//! | sweep: no second look before it removes; cells not cleared | `a_series_that_expires_..` |
//! | pipeline: forgets nothing; says that it sleeps before it records | `a_series_that_expires_..` |
//! | pipeline: remembers identities over a reload | `a_reload_that_makes_a_family_anew_..` |
//! | cells: a gauge changed by a load and a store | `no_change_of_a_gauge_is_lost_..` |
//! | sketch: a fence left out, in `change` or `steady`; version stored or loaded `Relaxed` | `a_summary_..`, `a_native_histogram_..`; of the first `a_set_..` too |
//! | sets: their list made registers under no version | `a_set_is_read_whole_..` |
//! | bins: a weight stored `Relaxed` | `a_native_bucket_is_never_ahead_..` |
//! | record: the native bucket before the count | `a_native_histogram_is_read_whole_..` |
//! | asked: a wish taken behind its obeying | `no_wish_to_a_worker_is_lost_..` |
//! | asked: emptied stored `Relaxed` | `who_sees_a_socket_emptied_..` |
//! | log: the line that tells of lost ones needs room as others do | `each_line_of_the_log_..` |
//! | users: a slice's number stored or loaded `Relaxed` | `a_slice_of_users_..` |
//! | place: a family or a series looked for under one lock, made under the next | `a_series_that_two_workers_make_..` |
//! | sweep: cells cleared under one lock, the series removed under the next | `a_scrape_sees_a_series_whole_..` |
//! | tables: a replaced family stays listed; one replaced whose shape is the same | `a_scrape_sees_a_family_once_..` |
//! | tables: old rules make a family anew | `a_worker_that_still_goes_by_old_rules_..` |
//! | sweep: a replaced family buried before all have forgotten it | `a_reload_that_makes_a_family_anew_..` |
//! | asked: a wish taken by a load and a store; the wish to end taken as others are | `a_worker_that_is_asked_to_end_..` |
//! | pipeline: what waits is dropped as rules change; a family made anew that should stay | `reloads` |
//! | text: the count read before the buckets | `reloads` |

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that cannot go on says so by panicking"
)]

mod reloads;
mod rounds;
mod stress;
mod told;
mod whole;

/// Runs a test in every order in which threads are interrupted no more than this often, with every value that their
/// loads may give.
fn in_every_order(interruptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(interruptions);
    model.max_branches = 20_000;
    let test = std::sync::Arc::new(test);
    model.check(move || {
        // The first thread's stack is too small for a pipeline.
        let test = test.clone();
        let all = loom::thread::Builder::new().stack_size(STACK).spawn(move || test());
        all.unwrap().join().unwrap();
    });
}

/// Starts a thread of a test.
fn start<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> loom::thread::JoinHandle<T> {
    loom::thread::Builder::new().stack_size(STACK).spawn(body).unwrap()
}

/// Enough for the pipeline, in what loom counts stacks by.
const STACK: usize = 1 << 17;
