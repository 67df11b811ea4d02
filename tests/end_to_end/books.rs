//! The books balance: every line ends in exactly one counter, and bad input spoils nothing else.

use std::collections::BTreeMap;

use crate::harness::Sidecar;

/// Bad lines, each with the one reason it is dropped for. `shared_total:1|c` went before.
fn refused_lines() -> Vec<(Vec<u8>, &'static str)> {
    let text: [(&str, &str); 31] = [
        ("bot.messages", "malformed_line"),
        ("bot messages are many", "malformed_line"),
        ("hits:1", "malformed_line"),
        (":1|c", "malformed_line"),
        // Tags, and no name before them.
        (",kind=a:1|c", "empty_name"),
        ("[kind=a]:1|c", "empty_name"),
        ("hits:abc|c", "malformed_value"),
        ("hits:1x|c", "malformed_value"),
        ("level:--1|g", "malformed_value"),
        ("hits:1|q", "unknown_type"),
        ("hits:1|mss", "unknown_type"),
        ("hits:1|c|@-0.5", "sample_rate"),
        ("wait:1|ms|@-1", "sample_rate"),
        ("wait:1|ms|@2", "sample_rate"),
        ("hits:1|c||#kind:a", "malformed_field"),
        ("hits,kind=a:1|c|#kind:b", "mixed_tag_styles"),
        ("hits[kind=a]:1|c|#kind:b", "mixed_tag_styles"),
        ("hits:-1|c", "negative_counter"),
        ("hits:-0.5|c|#kind:a", "negative_counter"),
        ("hits:nan|c", "not_finite"),
        ("level:inf|g", "not_finite"),
        ("wait:-inf|ms", "not_finite"),
        ("shared_total:1|g", "type_conflict"),
        ("up:1|g", "type_conflict"),
        ("ALERTS:1|g", "type_conflict"),
        ("statsieve.lines:1|c", "type_conflict"),
        ("process.cpu:1|g", "type_conflict"),
        ("scrape.samples:1|g", "type_conflict"),
        ("hits:1|c|#__name__:evil", "reserved_label"),
        ("size:1|h|#le:1", "reserved_label"),
        ("wait:1|ms|#le:1", "reserved_label"),
    ];
    let mut lines: Vec<(Vec<u8>, &str)> =
        text.into_iter().map(|(line, reason)| (line.as_bytes().to_vec(), reason)).collect();
    lines.push((b"hi\xffts:1|c".to_vec(), "invalid_utf8"));
    lines.push((b"hits:1|c|#kind:\xc3".to_vec(), "invalid_utf8"));
    // listen.max_line_bytes is 8192, labels.max_name_bytes 256.
    lines.push((format!("hits:1|c|#kind:{}", "x".repeat(8192)).into_bytes(), "line_too_long"));
    lines.push((format!("{}:1|c", "x".repeat(257)).into_bytes(), "name_too_long"));
    lines
}

#[test]
fn each_bad_line_is_dropped_for_its_own_reason_and_good_ones_around_it_count() {
    let sidecar = Sidecar::start(&[]);
    sidecar.take(&["shared_total:1|c"]);
    let mut sent = 1;
    let mut before = BTreeMap::new();
    for (line, reason) in refused_lines() {
        // The bad line in the middle of a datagram.
        let datagram = [b"good:1|c\n", &line[..], b"\ngood:1|c\n"].concat();
        sidecar.sender().send(&datagram);
        sent += 3;
        let scrape = sidecar.settled(sent);
        let shown = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
        *before.entry(reason.to_owned()).or_default() += 1;
        assert_eq!(scrape.dropped_by_reason(), before, "after {shown:?} in\n{}", scrape.text);
        assert_eq!(scrape.lines(), sent as f64, "after {shown:?}");
        assert_eq!(scrape.recorded() + scrape.dropped(), sent as f64, "after {shown:?}");
    }
    let refused = refused_lines().len() as f64;
    let scrape = sidecar.scrape();
    scrape.assert("good_total", 2.0 * refused);
    scrape.assert("shared_total", 1.0);
    sidecar.stop();
}

#[test]
fn a_long_mix_of_good_and_bad_lines_balances_to_the_line() {
    let sidecar = Sidecar::start(&[]);
    let bad: Vec<Vec<u8>> = refused_lines().into_iter().map(|(line, _)| line).filter(|line| line.len() < 200).collect();
    let good = ["hits:1|c", "level:3|g", "wait:12|ms|#kind:a", "size:9|h|#user_id:7", "spread:2|d"];
    let sender = sidecar.sender();
    let mut sent = 0;
    for round in 0..40 {
        let mut datagram = Vec::new();
        for place in 0..25 {
            let number = round * 25 + place;
            if number % 3 == 0 {
                datagram.extend_from_slice(&bad[number / 3 % bad.len()]);
            } else {
                datagram.extend_from_slice(good[number % good.len()].as_bytes());
            }
            // Blank lines are no lines.
            datagram.extend_from_slice(if number % 7 == 0 { b"\n\n" } else { b"\n" });
            sent += 1;
        }
        sender.send(&datagram);
    }
    let scrape = sidecar.settled(sent);
    assert_eq!(scrape.lines(), 1000.0);
    assert_eq!(scrape.recorded() + scrape.dropped(), 1000.0, "{}", scrape.text);
    // 334 numbers below 1,000 are multiples of 3. `shared_total:1|g` is no conflict here: nobody took the name before.
    let conflicts_not_met = (0..334).filter(|number| bad[number % bad.len()] == b"shared_total:1|g").count();
    assert_eq!(scrape.dropped(), (334 - conflicts_not_met) as f64, "{}", scrape.text);
    scrape.assert("statsieve_datagrams_total{listener=\"udp\"}", 40.0);
    sidecar.stop();
}

#[test]
fn tags_that_are_left_out_are_counted_and_cost_no_sample() {
    let sidecar = Sidecar::start(&[]);
    let long = format!("hits:1|c|#note:{}", "x".repeat(300));
    let scrape =
        sidecar.take(&["hits:1|c|#urgent,kind:a", "hits:1|c|#message_id:9,kind:a", "hits:1|c|#kind:,x:y", &long]);
    assert_eq!((scrape.recorded(), scrape.dropped()), (4.0, 0.0), "{}", scrape.text);
    scrape.assert("hits_total{kind=\"a\"}", 2.0);
    scrape.assert("hits_total{x=\"y\"}", 1.0);
    scrape.assert(&format!("hits_total{{note=\"{}\"}}", "x".repeat(256)), 1.0);
    for reason in ["bare", "dropped", "malformed", "truncated"] {
        scrape.assert(&format!("statsieve_tags_dropped_total{{reason=\"{reason}\"}}"), 1.0);
    }
    sidecar.stop();
}

#[test]
fn hostile_datagrams_leave_the_process_the_scrape_and_other_series_alone() {
    let mut sidecar = Sidecar::start(&[]);
    let hostile: Vec<Vec<u8>> = vec![
        b"\xff\xfe\xfd:1|c".to_vec(),
        b"\0".to_vec(),
        b"a\0b:1|c".to_vec(),
        b"hits:\0|c".to_vec(),
        // The most that one IPv4 datagram holds.
        vec![b','; 65_507],
        vec![b':'; 8_000],
        vec![b'|'; 8_000],
        [b"many:1|c|#".as_slice(), &b",".repeat(4_000)].concat(),
        [b"packed:".as_slice(), &b"1:".repeat(2_000), b"1|q"].concat(),
        b"]a[:1|c".to_vec(),
        b"a]b:1|c".to_vec(),
        b"a[b:1|c".to_vec(),
        b"[]:1|c".to_vec(),
        b"x:1|h|#le:1".to_vec(),
        b"y:1|ms|#quantile:0.5".to_vec(),
        b"z:1|ms|@0.000000001".to_vec(),
        b"z:1|ms|@1e-308".to_vec(),
        b"n:nan|c".to_vec(),
        b"n:1e308|c".to_vec(),
        b"n:1e308|c".to_vec(),
        b"go_goroutines:1|g".to_vec(),
        b"up:1|g".to_vec(),
        b"k:1|c|#__x:1".to_vec(),
        b"k:1|c|#:v".to_vec(),
        b"_e{5,4}:ti".to_vec(),
        b"_e{99999999999999999999,4}:title|text".to_vec(),
        b"_e{4294967295,4294967295}:title|text".to_vec(),
        b"_e{".to_vec(),
        b"_sc".to_vec(),
        b"_sc||9".to_vec(),
    ];
    let sender = sidecar.sender();
    let mut lines = 0;
    for datagram in &hostile {
        sender.send(b"good:1|c|#kind:before");
        sender.send(datagram);
        sender.send(b"good:1|c|#kind:after");
        lines += 3;
        let scrape = sidecar.settled(lines);
        assert_eq!(
            scrape.lines(),
            lines as f64,
            "after {:?}",
            String::from_utf8_lossy(&datagram[..datagram.len().min(60)])
        );
    }
    let scrape = sidecar.scrape();
    scrape.assert("good_total{kind=\"before\"}", hostile.len() as f64);
    scrape.assert("good_total{kind=\"after\"}", hostile.len() as f64);
    for reason in ["not_finite", "reserved_label", "type_conflict", "invalid_utf8", "line_too_long"] {
        assert!(scrape.dropped_by_reason().contains_key(reason), "no {reason} in\n{}", scrape.text);
    }
    // Neither NaN nor a sum of two values near the largest made a number that is none.
    for (series, value) in &scrape.samples {
        assert!(value.is_finite(), "{series} is {value}");
    }
    for accept in ["application/openmetrics-text;version=1.0.0", "text/plain"] {
        assert_eq!(sidecar.scrape_as(accept).value("good_total{kind=\"after\"}"), hostile.len() as f64);
    }
    assert!(sidecar.is_running());
    assert_eq!(sidecar.get("/-/healthy", &[]).status, 200);
    sidecar.stop();
}

#[test]
fn a_series_sent_with_reserved_names_cannot_overwrite_what_prometheus_or_the_sidecar_says() {
    let sidecar = Sidecar::start(&[]);
    let scrape = sidecar.take(&["up:0|g", "statsieve_lines_total:5|c", "statsieve_lines:5|c", "go_goroutines:3|g"]);
    assert_eq!(scrape.get("up"), None);
    scrape.assert("statsieve_lines_total", 4.0);
    scrape.assert("go_goroutines", 3.0);
    assert_eq!(scrape.dropped_by_reason(), BTreeMap::from([("type_conflict".to_owned(), 3)]));
    sidecar.stop();
}
