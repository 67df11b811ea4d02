//! Lines, sweeps, reloads and scrapes in any order, by several workers, against a model.
//!
//! In: bytes, of which each step takes a few. Out: nothing, or a panic that says what did not hold.
//! Not here: what should hold (`model`), what a line asks for (`terms`).

use std::time::Duration;

use arbitrary::{Result, Unstructured};

use super::model::Model;
use super::rig::{Rig, all_formats};
use super::terms::{MEMBERS, Sent, TERMS};

/// Steps of one play: several short ones find more than a long one in the same time.
const MOST: usize = 120;
/// Members for series without tags; each of the others is sent once, so that it is seen where it goes.
const COMMON: u8 = 16;

/// Plays what the bytes say.
pub(super) fn play(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (workers, terms) = (bytes.int_in_range(1..=3)?, bytes.choose_index(TERMS.len())?);
    // To make and read all formats takes as long as some fifty steps.
    let in_all_formats = bytes.int_in_range(0..=7)? == 0;
    let mut rig = Rig::of(&TERMS[terms].config, workers);
    let mut model = Model::new(terms, workers);
    let mut fresh = COMMON;
    model.sweep(&mut rig, Duration::from_secs(1));
    for _ in 0..MOST {
        if bytes.is_empty() {
            break;
        }
        match bytes.int_in_range(0..=23)? {
            0 | 1 => model.sweep(&mut rig, Duration::from_millis(bytes.int_in_range(0..=4000)?)),
            2 => model.sweep(&mut rig, Duration::from_secs(bytes.int_in_range(0..=900)?)),
            3 => model.reload(&rig, bytes.choose_index(TERMS.len())?),
            4 => model.check(&rig),
            5 => model.rest(&mut rig, bytes.int_in_range(0..=2)?),
            6 => {
                let times = bytes.int_in_range(2..=5)?;
                let sent = sent(bytes, &mut fresh)?;
                model.take(&mut rig, bytes.int_in_range(0..=2)?, &sent, times);
            }
            _ => {
                let sent = sent(bytes, &mut fresh)?;
                model.take(&mut rig, bytes.int_in_range(0..=2)?, &sent, 1);
            }
        }
    }
    model.compare(&rig);
    if in_all_formats {
        all_formats(&rig);
    }
    model.end(&mut rig);
    Ok(())
}

fn sent(bytes: &mut Unstructured<'_>, fresh: &mut u8) -> Result<Sent> {
    let kind = *bytes.choose(&["c", "c", "h", "g", "s", "ms"])?;
    let name = match bytes.int_in_range(0..=8)? {
        0 => "y".to_owned(),
        1 => format!("d.{}", bytes.int_in_range(0..=4)?),
        n => format!("{kind}{}", n % 4),
    };
    let flags: u8 = bytes.arbitrary()?;
    let mut tag = |flag: u8, most: u8| Ok((flags & flag != 0).then_some(bytes.int_in_range(0..=most)?));
    let (mut k, mut l, mut user) = (tag(1, 40)?, tag(2, 3)?, tag(4, 9)?);
    let mut values = vec![bytes.int_in_range(1..=9)?];
    if kind == "s" {
        if k.or(l).is_some() && usize::from(*fresh) < MEMBERS.len() {
            values[0] = *fresh;
            *fresh += 1;
        } else {
            // Without tags there is one series it may go to.
            (k, l, user) = (None, None, user);
        }
    } else if flags & 24 == 24 && kind != "g" {
        values.push(bytes.int_in_range(1..=9)?);
    }
    let observes = matches!(kind, "c" | "h" | "ms");
    let weight = if flags & 32 != 0 && observes { *bytes.choose(&[2, 4, 10])? } else { 1 };
    let sign = if kind == "g" { ["", "", "+", "-"][usize::from(flags >> 6)] } else { "" };
    Ok(Sent { kind, name, values, sign, weight, k, l, user })
}
