//! The status page, as it is served and as a browser shows it.

use crate::browser::Browser;
use crate::harness::{Sidecar, wait_until};

/// What the page shows of a part, in the browser.
fn text_of(browser: &mut Browser, part: &str) -> String {
    browser.tell(&format!("document.querySelector('{part}').innerText")).as_str().unwrap().to_owned()
}

/// Nothing was asked for but at the sidecar, and the browser has nothing to complain of.
fn assert_kept_to_itself(browser: &Browser, sidecar: &Sidecar) {
    let own = format!("http://{}/", sidecar.http);
    let asked = browser.asked_for();
    let outside: Vec<&String> =
        asked.iter().filter(|url| !url.starts_with(&own) && !url.starts_with("data:")).collect();
    assert!(!asked.is_empty() && outside.is_empty(), "{outside:?}");
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}

/// Nothing sticks out at the side.
fn assert_fits(browser: &mut Browser, width: u32) {
    let found = browser.tell("[document.documentElement.scrollWidth, innerWidth]");
    assert_eq!(found, serde_json::json!([width, width]));
}

#[test]
fn the_page_is_whole_without_script_and_says_what_a_browser_may_do() {
    let sidecar = Sidecar::start(&["http.metrics_path=/own&path", "telemetry.own_metrics=core"]);
    let reply = sidecar.get("/", &[]);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    let page = reply.text();
    let order = [
        "id=\"verdict\" class=\"warning\"",
        "Nothing was received yet. It waits on udp <code>127.0.0.1:",
        "<pre>echo &#39;bot.messages:1|c|#user_id:42&#39; | nc -u -q0 127.0.0.1 ",
        "Nobody has scraped <code>/own&amp;path</code> yet",
        "    metrics_path: /own&amp;path",
        "<h2>The way of a sample</h2>",
        "<h2>Limits</h2>",
        "<h2>Families by cost</h2>",
        "<h2>Hints</h2>",
        "<h2>The last refused lines</h2>",
        "under 6 overrides. Hash <code>",
        "<a href=\"own&amp;path\">metrics</a>",
    ];
    let mut rest = page.as_str();
    for part in order {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("{part} comes not, or not in its place, in\n{page}")).1;
    }
    assert!(!page.contains("<!--") && !page.contains("src="), "{page}");
    // Data came: the first line is no longer asked for.
    sidecar.send(&["hits:1|c|#k:v", "hits:-1|c"]);
    sidecar.wait_until("they are counted", |it| it.get("/", &[]).text().contains("negative_counter"));
    let page = sidecar.get("/", &[]).text();
    for part in ["id=\"first\" hidden", "class=\"critical\"", "hits:-1|c</td>", "use a gauge for what can go down"] {
        assert!(page.contains(part), "{part} in\n{page}");
    }
    sidecar.stop();
}

#[test]
#[ignore = "needs Chromium: run by tests/run"]
fn a_browser_shows_an_empty_sidecar_then_what_comes_without_being_asked_again() {
    let sidecar = Sidecar::start(&["listen.workers=2"]);
    let url = format!("http://{}/", sidecar.http);
    let mut browser = Browser::start();
    for (name, width, scheme) in [("empty", 1280, "light"), ("empty-phone", 360, "light"), ("empty-dark", 1280, "dark")]
    {
        browser.open(&url, width, 800, scheme);
        assert_fits(&mut browser, width);
        browser.picture(&format!("{name}.png"), name != "work");
    }
    assert!(text_of(&mut browser, "#first").contains("nc -u -q0"));
    assert!(browser.tell("document.title").as_str().unwrap().starts_with("warning: Statsieve 127.0.0.1:"));
    sidecar.take(&["bot.queue.size:12|g|#queue:outbox", "bot.messages:1|c|#user_id:42"]);
    browser.wait_until(
        "it shows them by itself",
        "document.querySelector('#families').innerText.includes('bot_queue_size')",
    );
    assert!(text_of(&mut browser, "#verdict").contains("All is well"));
    assert_eq!(browser.tell("document.querySelector('#first').hidden"), true);
    browser.tell("document.querySelector('#pause').click()");
    assert!(text_of(&mut browser, "#state").starts_with("as of "));
    browser.tell("document.querySelector('#pause').click()");
    assert_kept_to_itself(&browser, &sidecar);
    sidecar.stop();
    browser.wait_until("it says so", "document.querySelector('#state').innerText.startsWith('no answer since')");
    assert_eq!(browser.tell("document.querySelector('main').className"), "gone");
}

#[test]
#[ignore = "needs Chromium: run by tests/run"]
fn a_sidecar_at_work_is_shown_on_a_screen_a_phone_and_in_the_dark() {
    let sidecar = Sidecar::start(&["listen.workers=2"]);
    let sender = sidecar.sender();
    let mut sent = 0;
    for round in 0..60 {
        for n in 0..50 {
            let user = (round * 50 + n) * 7919;
            let lines = [
                format!("bot.messages:1|c|#user_id:{user},activity_type:message"),
                format!("bot.updates:1|c|#type:{},result:ok", ["message", "callback", "inline"][n % 3]),
                format!("bot.commands:1|c|#command:{},result:ok", ["help", "start", "play", "stop"][n % 4]),
                format!("bot.reply.latency:{}|ms|#command:{}", n + 7, ["help", "start", "play"][n % 3]),
                format!("bot.cache.requests:1|c|#cache:profile,result:{}", if n % 16 == 0 { "miss" } else { "hit" }),
                format!("bot.queue.size:{n}|g|#queue:outbox"),
            ];
            sent += lines.len() as u64;
            sender.send(lines.join("\n").as_bytes());
        }
        sidecar.wait_until("they are taken", |it| it.scrape().lines() >= sent as f64);
    }
    sidecar.settled(sent);
    let url = format!("http://{}/", sidecar.http);
    let mut browser = Browser::start();
    for (name, width, scheme) in [("work", 960, "light"), ("work-phone", 360, "dark"), ("work-dark", 1280, "dark")] {
        browser.open(&url, width, 1000, scheme);
        assert_fits(&mut browser, width);
        let dark = browser.tell("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)";
        assert_eq!(dark, scheme == "dark");
        browser.picture(&format!("{name}.png"), name != "work");
    }
    let way = text_of(&mut browser, "#way");
    for part in ["3,000", "18,000", "0 dropped by the kernel", "0 lost", "P95"] {
        assert!(way.contains(part), "{part} in\n{way}");
    }
    assert!(text_of(&mut browser, "#scrapes").contains("Last scraped "));
    assert_kept_to_itself(&browser, &sidecar);
    sidecar.stop();
}

#[test]
#[ignore = "needs Chromium: run by tests/run"]
fn what_is_sent_to_do_harm_is_shown_as_text() {
    let settings = ["labels.max_values=10", "cardinality.max_families=6", "listen.workers=1"];
    let sidecar = Sidecar::start(&settings);
    let long = "v".repeat(200);
    let evil = "<script>document.title='taken'</script>";
    let image = "<img src=http://192.0.2.1/x onerror=\"document.title='taken'\">";
    let mut lines = vec![
        format!("{evil}:x|c"),
        format!("x{image}:1|zz"),
        format!("a:nan|g|#k:{long}{long}"),
        format!("hits:1|c|#{long}:{evil},k:\u{202e}{long},q:\"'"),
        format!("{long}:3|ms|#{long}:{long}"),
        "hits:1|g".to_owned(),
    ];
    lines.extend((0..200).map(|n| format!("req:1|c|#{}:{n}", "request<b>")));
    lines.extend((0..9).map(|n| format!("spare{n}<i>:1|c")));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    sidecar.take(&lines);
    let url = format!("http://{}/", sidecar.http);
    let mut browser = Browser::start();
    for (name, width, scheme) in
        [("trouble", 1280, "light"), ("trouble-phone", 360, "light"), ("trouble-dark", 360, "dark")]
    {
        browser.open(&url, width, 800, scheme);
        assert_fits(&mut browser, width);
        browser.picture(&format!("{name}.png"), name != "work");
    }
    // Once more by script: what was refused since shows that it ran.
    // Of the lines refused for one reason only one a second is kept, so it is sent until it is.
    wait_until("it looks again", || {
        sidecar.send(&["late<u>\u{202e}:q|h"]);
        browser.tell("document.querySelector('#refused').innerText.includes('late')") == true
    });
    let refused = text_of(&mut browser, "#refused");
    for part in [evil, image, "late<u>\\u{202e}:q|h"] {
        assert!(refused.contains(part), "{part} in\n{refused}");
    }
    assert_eq!(browser.tell("document.querySelectorAll('main b, main i, main u, main img, main script').length"), 1);
    assert!(browser.tell("document.title").as_str().unwrap().starts_with("critical: Statsieve "));
    assert!(text_of(&mut browser, "#limits").contains("max_values"));
    assert!(text_of(&mut browser, "#hints").contains("drop = [\"dd.internal.*\""));
    assert_kept_to_itself(&browser, &sidecar);
    sidecar.stop();
}
