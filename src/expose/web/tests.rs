use std::fs::{self, File};

use super::*;

/// A web configuration that is followed, in a folder of its own.
struct Rig(#[expect(dead_code, reason = "dropped, it takes the folder along")] tempfile::TempDir, PathBuf, Followed);

fn rig(text: &str) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yml");
    fs::write(&path, text).unwrap();
    let followed = Followed::new(&path).unwrap_or_else(|problems| panic!("{problems}"));
    Rig(folder, path, followed)
}

impl Rig {
    /// Writes the file as it was written a while ago, and lets the time of a look pass.
    fn write(&self, text: &str) -> Arc<InForce> {
        fs::write(&self.1, text).unwrap();
        self.aged(Duration::from_secs(5))
    }

    fn aged(&self, age: Duration) -> Arc<InForce> {
        File::options().write(true).open(&self.1).unwrap().set_modified(SystemTime::now() - age).unwrap();
        self.look()
    }

    fn look(&self) -> Arc<InForce> {
        self.2.looked.lock().unwrap().at = Instant::now() - LOOK;
        self.2.now()
    }
}

const FRAME: &str = "http_server_config: {headers: {X-Frame-Options: sameorigin}}\n";

fn users() -> String {
    format!("basic_auth_users: {{a: {}}}\n", bcrypt::hash("b", 4).unwrap())
}

#[test]
fn a_change_is_seen_at_the_next_look_and_not_before() {
    let rig = rig("");
    fs::write(&rig.1, FRAME).unwrap();
    rig.2.looked.lock().unwrap().at = Instant::now() + Duration::from_secs(60);
    File::options().write(true).open(&rig.1).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(rig.2.now().headers.is_empty(), "it was looked at a moment ago");
    assert_eq!(rig.look().headers.len(), 1);
}

#[test]
fn a_file_that_is_being_written_is_left_alone_for_a_while() {
    let rig = rig("");
    fs::write(&rig.1, FRAME).unwrap();
    assert!(rig.aged(Duration::ZERO).headers.is_empty(), "its writer may not be done");
    assert_eq!(rig.aged(SETTLED).headers.len(), 1);
}

#[test]
fn a_bad_file_changes_nothing_and_a_good_one_after_it_does() {
    let rig = rig(FRAME);
    let before = rig.2.now();
    let after = rig.write("http_server_config: {http3: true}\n");
    assert!(Arc::ptr_eq(&before, &after));
    assert!(rig.2.looked.lock().unwrap().refused.as_ref().unwrap().contains("http3"));
    assert!(rig.write("").headers.is_empty());
    assert_eq!(rig.2.looked.lock().unwrap().refused, None);
    fs::remove_file(&rig.1).unwrap();
    rig.look();
    assert!(rig.2.looked.lock().unwrap().refused.as_ref().unwrap().contains("cannot be read"));
}

#[test]
fn users_are_not_given_up_by_a_file_that_lacks_them() {
    let rig = rig(&users());
    assert_eq!(rig.write("").web.users.len(), 1);
    assert!(rig.2.looked.lock().unwrap().refused.is_some());
    // Others in their place are fine.
    assert!(rig.write(&users().replace("{a:", "{c:")).web.users.contains_key("c"));
}

#[test]
fn a_quota_goes_on_through_a_change_of_something_else() {
    let quota = "rate_limit: {interval: 1h, burst: 2}\n";
    let rig = rig(quota);
    assert!(rig.2.now().admit().is_ok());
    let changed = rig.write(&format!("{FRAME}{quota}"));
    assert_eq!(changed.headers.len(), 1);
    assert!(changed.admit().is_ok());
    let wait = changed.admit().unwrap_err();
    assert!(wait > Duration::from_secs(3000) && wait <= Duration::from_secs(3600), "{wait:?}");
    assert!(rig.write("rate_limit: {interval: 1h, burst: 3}\n").admit().is_ok(), "another quota begins anew");
}

#[test]
fn headers_of_the_file_replace_those_of_an_answer_or_take_them_out() {
    let rig = rig("http_server_config: {headers: {X-Frame-Options: sameorigin, Content-Security-Policy: ''}}\n");
    let mut headers = HeaderMap::new();
    headers.insert("x-frame-options", HeaderValue::from_static("deny"));
    headers.insert("content-security-policy", HeaderValue::from_static("x"));
    rig.2.now().dress(&mut headers);
    assert_eq!(headers.len(), 1);
    assert_eq!(headers["x-frame-options"], "sameorigin");
}

#[test]
fn a_reload_keeps_the_quota_and_what_is_known_of_passwords() {
    let text = format!("{}rate_limit: {{interval: 1h, burst: 2}}\n", users());
    let rig = rig(&text);
    assert!(rig.2.now().admit().is_ok());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let header = || HeaderValue::from_str(&basic(b"a:b")).ok();
    let sender = |followed: &Followed| runtime.block_on(followed.sender(&followed.now(), header(), None));
    assert_eq!(sender(&rig.2), Some(Verdict::User));
    fs::write(&rig.1, format!("{FRAME}{text}")).unwrap();
    let after = rig.2.anew(&rig.1).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(after.now().headers.len(), 1);
    assert!(after.now().admit().is_ok() && after.now().admit().is_err(), "two in all");
    assert!(Arc::ptr_eq(&after.checker, &rig.2.checker), "what it found out, it knows");
    // What takes users away is in force at once, since somebody asked for it.
    fs::write(&rig.1, FRAME).unwrap();
    let open = after.anew(&rig.1).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(sender(&open), None);
}
