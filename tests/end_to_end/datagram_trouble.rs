//! Datagrams that make no sense, over UDP and over a unix socket: each is counted where the books say, and no other
//! line pays for it.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::harness::Sidecar;
use crate::lint;

/// The longest that UDP carries over IPv4.
const LONGEST: usize = 65_507;

/// Ten thousand tags of six bytes each.
fn many_tags() -> Vec<u8> {
    let digit = |n: usize| char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[n % 36]);
    let tags: Vec<String> =
        (0..10_000).map(|n| format!("{}{}{}:v", digit(n / 1296 + 10), digit(n / 36), digit(n))).collect();
    format!("tags:1|c|#{}", tags.join(",")).into_bytes()
}

/// The listener that takes it, and how to send to it.
type Way = (&'static str, Box<dyn Fn(&[u8])>);

/// A name, how many of it, the bytes, and how many of its lines are dropped for what.
type Input = (&'static str, usize, Vec<u8>, &'static [(&'static str, u64)]);

fn ways(sidecar: &Sidecar, path: &Path) -> [Way; 2] {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(sidecar.udp).unwrap();
    let unix = UnixDatagram::unbound().unwrap();
    unix.connect(path).unwrap();
    [
        ("udp", Box::new(move |datagram| assert_eq!(udp.send(datagram).unwrap(), datagram.len()))),
        ("unix_datagram", Box::new(move |datagram| assert_eq!(unix.send(datagram).unwrap(), datagram.len()))),
    ]
}

#[test]
fn datagrams_that_make_no_sense_are_counted_where_the_books_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d");
    let sidecar = Sidecar::start(&["listen.workers=1", &format!("listen.unix_datagram={}", path.display())]);
    let before = sidecar.take(&["good:1|c"]).value("process_resident_memory_bytes");
    let inputs: [Input; 11] = [
        ("nothing but newlines", 1, vec![b'\n'; LONGEST], &[]),
        ("nothing at all", 3000, vec![], &[]),
        ("one line as long as can be", 1, vec![b'x'; LONGEST], &[("line_too_long", 1)]),
        ("zeros", 1, vec![0; 8000], &[("malformed_line", 1)]),
        ("zeros as far as can be", 1, vec![0; LONGEST], &[("line_too_long", 1)]),
        ("a name of bytes", 1, b"\xff\xfe:1|c\nna\xc3me:1|c".to_vec(), &[("invalid_utf8", 2)]),
        ("tags of bytes", 1, b"tag:1|c|#k:\xff\ntag:1|c|#\xc3:v".to_vec(), &[("invalid_utf8", 2)]),
        ("a value and a type of bytes", 1, b"v:\xff|c\nv:1|\xff".to_vec(), &[("invalid_utf8", 2)]),
        ("ten thousand tags", 1, many_tags(), &[("line_too_long", 1)]),
        ("many colons", 1, vec![b':'; 8000], &[("malformed_line", 1)]),
        ("many bars", 1, [&b"v:1|c"[..], &[b'|'; 8000]].concat(), &[("malformed_field", 1)]),
    ];
    let (mut lines, mut dropped, mut good) = (1, BTreeMap::<String, u64>::new(), 1.0);
    for (listener, send) in ways(&sidecar, &path) {
        let (mut datagrams, mut bytes) = (0, 0);
        for (what, times, input, losses) in &inputs {
            send(b"good:1|c");
            for n in 0..*times {
                send(input);
                if n % 500 == 499 {
                    let expected = (datagrams + 1 + n + 1) as f64 + f64::from(listener == "udp");
                    let series = format!("statsieve_datagrams_total{{listener=\"{listener}\"}}");
                    sidecar.wait_until("they are read", |it| it.scrape().value(&series) == expected);
                }
            }
            send(b"good:1|c");
            (datagrams, bytes, good) = (datagrams + times + 2, bytes + times * input.len() + 16, good + 2.0);
            for (reason, n) in *losses {
                *dropped.entry((*reason).to_owned()).or_default() += n;
            }
            lines += 2 + losses.iter().map(|(_, n)| n).sum::<u64>();
            let scrape = sidecar.settled(lines);
            assert_eq!(scrape.dropped_by_reason(), dropped, "{what} over {listener}");
            assert_eq!(scrape.lines(), lines as f64, "{what} over {listener}");
            scrape.assert("good_total", good);
            lint::check(&scrape.text, false);
        }
        // The first line of all came over UDP.
        let first = if listener == "udp" { 1 } else { 0 };
        let of = |metric: &str| sidecar.scrape().value(&format!("statsieve_{metric}{{listener=\"{listener}\"}}"));
        assert_eq!(of("datagrams_total"), (datagrams + first) as f64);
        assert_eq!(of("received_bytes_total"), (bytes + first * 8) as f64);
    }
    let scrape = sidecar.scrape();
    assert_eq!((scrape.recorded(), scrape.kernel_drops()), (good, 0.0), "{}", scrape.text);
    assert_eq!(scrape.user_series().keys().collect::<Vec<_>>(), [&"good_total"], "{}", scrape.text);
    let grown = scrape.value("process_resident_memory_bytes") - before;
    assert!(grown < 8e6, "{grown} bytes");
    sidecar.stop();
}

#[test]
fn of_ten_thousand_tags_as_many_are_kept_as_may_be_and_the_rest_is_counted() {
    let sidecar = Sidecar::start(&["listen.workers=1", "listen.max_line_bytes=65536"]);
    sidecar.sender().send(&many_tags());
    let scrape = sidecar.settled(1);
    assert_eq!((scrape.recorded(), scrape.dropped(), scrape.sum("tags_total")), (1.0, 0.0, 1.0), "{}", scrape.text);
    let (labels, _) = scrape.of("tags_total").next().unwrap();
    let kept = labels.matches("=\"v\"").count();
    scrape.assert("statsieve_tags_dropped_total{reason=\"too_many\"}", (10_000 - kept) as f64);
    assert_eq!(kept, 32, "{labels}");
    sidecar.stop();
}
