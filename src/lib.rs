//! Statsieve: StatsD and DogStatsD in, a bounded number of Prometheus series out. The architecture in one page.
//!
//! # What comes in
//!
//! Datagrams on UDP and unix sockets and streams over TCP and unix sockets, with lines such as
//! `bot.messages:1|c|#user_id:42,activity_type:message`. Scrapes over HTTP. A configuration, at start and at each reload;
//! in place of `statsd_exporter`, that program's flags ([`command::statsd_exporter`]).
//! Nothing else: the process keeps no files, and sends nothing but answers and, if told to, the lines it got ([`relay`]).
//!
//! # The way of a sample
//!
//! ```text
//! socket -> datagram -> line -> sample -> identity -> name, labels -> gate -> series -> scrape
//!           listen      parse   parse     identity    map             admit   aggregate  expose
//! ```
//!
//! 1. [`listen`]: a [`listen::worker::Worker`] reads its own socket of datagrams in batches. The kernel's receive buffer
//!    is the only queue, and what it drops is read back and counted. [`listen::stream`] reads all streams; what it does
//!    not read yet has the sender wait.
//! 2. [`parse`]: [`parse::Line`] cuts the name off a line, and [`parse::Sample`] is one value, or several that share
//!    all the rest. Both borrow the datagram; nothing is copied.
//! 3. [`identity`]: [`identity::TagRules`] writes the words that tell one series from another, with the values of user
//!    tags already replaced by user buckets. [`identity::cache::Cache`] remembers what became of them. **A known
//!    identity goes straight to step 6**, with no lock and no allocation.
//!    [`insight`] hears of the values on the way, for estimates of unique users and a list of the loudest; it looks at
//!    one in 64 under a lock that only readers of that list share.
//! 4. [`map`]: for a new identity only, [`map::Mapper`] finds the mapping rule for the raw name, or makes the legal name
//!    and its suffix, and then the sorted labels.
//! 5. [`admit`]: [`admit::Gate`] says how far a new series must give way: full, values folded, simplified, merged into
//!    the family's overflow series, or refused. Two more gates stand on the way: [`admit::sampling`] before a line is
//!    read, [`admit::quota`] before it is recorded.
//! 6. [`aggregate`]: [`aggregate::Store`] hands out the place of a series, asking the gate at each rung, and
//!    [`aggregate::Recorder`] adds to it: a sum, a count in a bucket, or an entry of a sketch ([`aggregate::sketch`]) that
//!    grows into the worker's arena. Once a second, unless all rests, [`aggregate::Store::sweep`] lets idle series give
//!    way: it marks them, waits until every worker has passed a batch boundary ([`aggregate::grace`]), and removes what
//!    was not used.
//!
//! [`pipeline`] is the one module that knows this order. A stage knows the words of [`model`] and its own part of
//! [`config`], never a socket, a file or a request, so it is tested with plain values.
//!
//! # Threads, and who owns what
//!
//! - One thread for each UDP socket (`udp-0`, `udp-1`, ...), one for a unix datagram socket, one for all streams. It
//!   owns its socket, its [`pipeline::Pipeline`] with the identity cache, its shard of every counter, histogram, summary
//!   and set, and its [`telemetry::Tally`]. Workers never wait for one another, except for the store's lock when a series
//!   is new.
//! - The main thread runs a current-thread tokio runtime: the HTTP server, signals and timers.
//! - One thread writes the log, so that nobody else waits for whoever reads it (`command::log`).
//! - **One writer for each cell.** A worker adds to cells of its own shard by a load and a store; a reader sums the
//!   shards. Gauges are the exception: one cell for all workers, the last write wins, changes are atomic additions.
//! - **Rules are swapped as a whole.** [`pipeline::Rules`] holds all that the stages take from the configuration. It is
//!   published through `arc-swap`; each worker looks once for each datagram, and forgets its identities when the rules
//!   are new. [`reload`] makes and publishes them. Sockets and threads are set up once and never swapped,
//!   but for a unix socket whose file is gone ([`listen::unix::watch`]).
//! - **Books are published once a batch.** A tally is plain numbers; at the end of each read the worker stores them
//!   into its [`telemetry::Books`], which it alone writes. Figures of a socket stand in [`telemetry::SocketBooks`].
//!
//! # How a scrape reads
//!
//! [`expose::http`] chooses the format ([`expose::negotiate`]) and pulls an [`expose::Exposition`] piece by piece, so a
//! slow reader costs a piece or two of memory and no lock. A piece of user series ([`expose::text`],
//! [`expose::protobuf`]) is written under the store's lock, some microseconds; workers that record into known series do
//! not notice. Then come the own metrics ([`telemetry::Telemetry`], written by [`expose::own`]), which read the books
//! when asked. A scrape begins by asking the kernel for queues and drops, so that these are right when no datagram
//! follows to tell.
//!
//! Over what, and to whom, [`expose::web`] says: TLS and users, by a file that it follows. Without that file nothing of it
//! runs.
//!
//! A person is told by [`expose::report`]: JSON of the state of everything, of what costs how many series, and hints on
//! what to change, made from the same books and a census of the store ([`aggregate::census`]) when it is asked for.
//!
//! # What always holds
//!
//! - Every line ends in one count, recorded or dropped for one [`model::DropReason`]. A line of several values counts
//!   each. What the kernel drops is counted by the datagram.
//! - User series stay under `[cardinality]`, counted in sample lines. Counters and observations past a limit go to the
//!   overflow series, so a sum over a family loses detail and no total; past `max_families` they are dropped and
//!   counted. Gauges are never merged.
//! - A line that sampling leaves out is counted, and what it keeps weighs more, so sums and counts stay unbiased.
//! - The value of a bucketed tag never becomes a label.
//! - Names and label names are legal, labels are sorted, and a series is called the same in every format.
//! - No input stops a worker, fails a scrape, or makes a sum infinite. A worker that fails all the same ends the
//!   process with an error, for a supervisor to see.
//! - No unsafe code.
//!
//! # Where to start reading
//!
//! [`pipeline`], top to bottom; then [`aggregate::cells`] for the numbers and [`telemetry`] for the counts.
//! [`command::run`] puts everything together. Each module begins with what goes in, what comes out and what always
//! holds. The modules below are in reading order.

// From the socket to a sample.
pub mod listen;
pub mod parse;

// What it is a sample of.
pub mod identity;
pub mod map;

// Whether and where it is kept; and the stages in their order.
pub mod admit;
pub mod aggregate;
pub mod insight;
pub mod pipeline;
pub mod relay;

// What the outside sees.
pub mod expose;
pub mod telemetry;

// What all of it is told, who starts it, and the words they share.
pub mod cgroup;
pub mod clock;
pub mod command;
pub mod config;
pub mod model;
pub mod reload;
mod sync;
