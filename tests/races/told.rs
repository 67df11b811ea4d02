//! What threads tell one another beside the store, in every order: wishes to workers, lines of the log, users seen.

use std::sync::Arc;

use loom::thread;
use model::asked::{Asked, EMPTY, NOTHING, STOP};
use model::distinct::{Layout, Registers, Writer};
use model::sync::Ordering::{Acquire, Relaxed, Release};
use model::sync::{AtomicU64, Condvar, Mutex};
use model::waiting::Waiting;
use statsieve::config::{Sources, load};

use super::in_every_order;

/// What wakes a worker: as the kernel's event, it counts calls until they are heard.
#[derive(Default)]
struct Bell {
    calls: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.calls.lock().unwrap() += 1;
        self.rung.notify_one();
    }

    fn hear(&self) {
        let mut calls = self.calls.lock().unwrap();
        while *calls == 0 {
            calls = self.rung.wait(calls).unwrap();
        }
        *calls = 0;
    }
}

#[derive(Default)]
struct Worker {
    asked: Asked<u64>,
    bell: Bell,
    /// What it has recorded.
    books: AtomicU64,
}

impl Worker {
    /// Obeys as `listen::worker` does until asked to end, or until `enough` of what it does: the socket it is at, and
    /// how often it emptied one. If a wish were lost, this would wait for ever, and the model say so.
    fn run(&self, enough: impl Fn(u64, u64) -> bool) -> (u64, u64) {
        let (mut socket, mut emptied) = (0, 0);
        loop {
            let wish = self.asked.take();
            if wish != NOTHING {
                socket = self.asked.next().unwrap_or(socket);
            }
            if matches!(wish, EMPTY | STOP) {
                self.books.store(self.books.load(Relaxed) + 1, Relaxed);
                self.asked.emptied();
                emptied += 1;
            }
            if wish == STOP || enough(socket, emptied) {
                return (socket, emptied);
            }
            if wish == NOTHING {
                self.bell.hear();
            }
        }
    }
}

#[test]
fn no_wish_to_a_worker_is_lost_behind_another() {
    in_every_order(3, || {
        let worker = Arc::new(Worker::default());
        let changing = thread::spawn({
            let worker = worker.clone();
            move || {
                for socket in 1..=2 {
                    worker.asked.change_to(socket);
                    worker.bell.ring();
                }
            }
        });
        let emptying = thread::spawn({
            let worker = worker.clone();
            move || {
                worker.asked.ask(EMPTY);
                worker.bell.ring();
            }
        });
        assert_eq!(worker.run(|socket, emptied| (socket, emptied) == (2, 1)), (2, 1));
        changing.join().unwrap();
        emptying.join().unwrap();
    });
}

#[test]
fn a_worker_that_is_asked_to_end_reads_the_last_socket_it_was_given_before() {
    in_every_order(3, || {
        let worker = Arc::new(Worker::default());
        let running = thread::spawn({
            let worker = worker.clone();
            move || worker.run(|_, _| false)
        });
        worker.asked.change_to(1);
        worker.bell.ring();
        worker.asked.ask(STOP);
        worker.bell.ring();
        assert_eq!(running.join().unwrap(), (1, 1));
        assert!(worker.asked.is_stopping());
    });
}

#[test]
fn who_sees_a_socket_emptied_sees_what_was_in_it_recorded() {
    in_every_order(3, || {
        let worker = Arc::new(Worker::default());
        let running = thread::spawn({
            let worker = worker.clone();
            move || worker.run(|_, emptied| emptied > 0)
        });
        worker.asked.ask(EMPTY);
        worker.bell.ring();
        if worker.asked.has_emptied() {
            assert_eq!(worker.books.load(Relaxed), 1);
        }
        running.join().unwrap();
    });
}

#[test]
fn each_line_of_the_log_is_written_or_told_of_once() {
    in_every_order(3, || {
        // Room for one.
        let waiting = Arc::new(Waiting::new(3));
        let logging = [1, 2].map(|_| {
            let waiting = waiting.clone();
            thread::spawn(move || waiting.add(b"1\n"))
        });
        let mut out = Vec::new();
        let write = |out: &mut Vec<u8>| {
            waiting.write_next(out, |lost| waiting.add_own(format!("{lost}\n").as_bytes()));
        };
        write(&mut out);
        waiting.add(b"1\n");
        write(&mut out);
        logging.into_iter().for_each(|it| it.join().unwrap());
        // What is lost yet is told behind the first of them, by the second.
        for _ in 0..2 {
            waiting.add_own(b"0\n");
            write(&mut out);
        }
        // A line stands for itself, or for as many as it tells of.
        let written: u64 = String::from_utf8(out).unwrap().lines().map(|line| line.parse::<u64>().unwrap()).sum();
        assert_eq!(written, 3);
    });
}

#[test]
fn a_slice_of_users_that_says_it_is_new_is_seen_cleared() {
    let set =
        ["distinct.windows=['5s']", "distinct.registers=16", "bucketing=[{tags=['user_id'],label='user_bucket'}]"];
    let set = set.iter().map(ToString::to_string).collect();
    let config = load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config;
    let layout = Layout::new(&config);
    in_every_order(3, move || {
        let registers = Arc::new(Registers::new(&layout));
        let mut writer = Writer::new(&layout, registers.clone());
        // Registers are chosen by the first bits.
        let hash = |register: u64| register << 60 | 1 << 59;
        writer.add(0, hash(3));
        let seen = Arc::new(AtomicU64::new(0));
        let writing = thread::spawn({
            let seen = seen.clone();
            move || {
                // The same slice again, a window later.
                writer.turn(5000);
                writer.add(0, hash(5));
                seen.store(1, Release);
            }
        });
        let is_seen = seen.load(Acquire) == 1;
        let mut merged = vec![0; 16];
        registers.merge_into(&layout, 0, 0, 5000, &mut merged);
        assert_eq!(merged[3], 0, "the user of a window ago");
        assert!(merged[5] > 0 || !is_seen, "the user of now");
        writing.join().unwrap();
    });
}
