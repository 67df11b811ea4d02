//! The terminal of `top`: draws sections, takes keys, gives the terminal back.
//!
//! In: [`View`]s from a thread that asks, keys. Out: a screen.
//! Always: however it ends, by a key, a signal or a panic, the terminal is as it was; a sidecar that does not answer is
//! waited for, with what it told last.

use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Wrap};
use tokio::signal::unix::{SignalKind, signal};

use super::{Growth, Section, Sort, Tone, View, look};
use crate::command::OK;
use crate::command::healthcheck::Prepared;

/// How long a key may wait.
const KEYS: Duration = Duration::from_millis(100);
/// Width from which traffic and loss stand side by side.
const WIDE: u16 = 110;

/// What another thread tells.
enum Told {
    Seen(Box<View>),
    NoAnswer(String),
    /// A signal to end.
    End,
}

/// All that is shown.
#[derive(Default)]
struct State {
    view: Option<View>,
    growth: Growth,
    sort: Sort,
    is_paused: bool,
    /// Why nothing came the last time, and since when.
    away: Option<(Instant, String)>,
    address: String,
}

/// Gives the terminal back when dropped.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows a sidecar until a key or a signal ends it.
pub(super) fn run(endpoint: Prepared, interval: Duration) -> io::Result<u8> {
    let (tell, told) = channel();
    let mut state = State { address: endpoint.0.clone(), ..State::default() };
    end_on_signals(tell.clone())?;
    let (resume, resumed) = channel();
    thread::spawn(move || ask(&endpoint, interval, &tell, &resumed));
    // Its hook gives the terminal back on a panic, before the message.
    let mut terminal = ratatui::try_init()?;
    let _restore = Restore;
    loop {
        loop {
            match told.try_recv() {
                Ok(Told::End) => return Ok(OK),
                Ok(Told::Seen(view)) if !state.is_paused => state.seen(*view, Instant::now()),
                Ok(Told::NoAnswer(why)) if !state.is_paused => {
                    let since = state.away.take().map_or_else(Instant::now, |(since, _)| since);
                    state.away = Some((since, why));
                }
                Ok(_) => {}
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        terminal.draw(|frame| draw(frame, &state))?;
        if event::poll(KEYS)?
            && let Event::Key(key) = event::read()?
        {
            if state.ends_by(key) {
                return Ok(OK);
            }
            // Whoever waits for the next look sees it at once.
            let _ = resume.send(());
        }
    }
}

/// Asks again and again, until nobody listens.
fn ask(endpoint: &Prepared, interval: Duration, tell: &Sender<Told>, resumed: &Receiver<()>) {
    loop {
        let told = match look(endpoint) {
            Ok(view) => Told::Seen(Box::new(view)),
            Err(why) => Told::NoAnswer(why),
        };
        if tell.send(told).is_err() {
            return;
        }
        let _ = resumed.recv_timeout(interval);
    }
}

/// Tells of a signal, so that the terminal is given back before the end.
fn end_on_signals(tell: Sender<Told>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        let _ = tell.send(Told::End);
    });
    Ok(())
}

impl State {
    fn seen(&mut self, view: View, at: Instant) {
        self.growth.note(at, &view);
        self.view = Some(view);
        self.away = None;
    }

    /// Does what a key says; whether that is the end.
    fn ends_by(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        match key.code {
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            _ => {}
        }
        false
    }

    fn footer(&self) -> Line<'static> {
        let keys =
            format!("q quit   s sort ({})   p {}", self.sort.word(), if self.is_paused { "go on" } else { "pause" });
        match &self.away {
            Some((since, why)) => {
                let ago = since.elapsed().as_secs();
                Line::styled(format!("no answer for {ago} s, waiting: {why}   {keys}"), style(Tone::Bad))
            }
            None => Line::raw(keys),
        }
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Care => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
    }
}

fn draw(frame: &mut Frame<'_>, state: &State) {
    let [body, footer] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(state.footer(), footer);
    let Some(view) = &state.view else {
        let block = Block::bordered().title(" statsieve top ");
        frame.render_widget(Paragraph::new(format!("waiting for {}", state.address)).block(block), body);
        return;
    };
    let [verdict, traffic, loss, families, heavy] = view.sections(&state.growth, state.sort);
    let height = |section: &Section, most: usize| Constraint::Length(section.lines.len().min(most) as u16 + 2);
    let is_wide = body.width >= WIDE;
    let middle = match is_wide {
        true => height(if traffic.lines.len() > loss.lines.len() { &traffic } else { &loss }, 16),
        false => Constraint::Length((traffic.lines.len() + loss.lines.len().min(6) + 4) as u16),
    };
    let rows = [Constraint::Length(4), middle, Constraint::Fill(1), height(&heavy, 5)];
    let [top, middle, list, bottom] = Layout::vertical(rows).areas(body);
    let is_stale = state.away.is_some();
    section(frame, top, &verdict, is_stale);
    let (left, right) = match is_wide {
        true => {
            let [left, right] = Layout::horizontal([Constraint::Length(60), Constraint::Fill(1)]).areas(middle);
            (left, right)
        }
        false => {
            let rows = [height(&traffic, traffic.lines.len()), Constraint::Fill(1)];
            let [left, right] = Layout::vertical(rows).areas(middle);
            (left, right)
        }
    };
    section(frame, left, &traffic, is_stale);
    section(frame, right, &loss, is_stale);
    section(frame, list, &families, is_stale);
    section(frame, bottom, &heavy, is_stale);
}

fn section(frame: &mut Frame<'_>, area: Rect, section: &Section, is_stale: bool) {
    let lines: Vec<Line<'_>> =
        section.lines.iter().map(|(tone, text)| Line::styled(text.as_str(), style(*tone))).collect();
    let mut paragraph = Paragraph::new(lines).block(Block::bordered().title(format!(" {} ", section.title)));
    // The verdict is a sentence; all else are tables, cut at the edge.
    if section.lines.len() == 1 {
        paragraph = paragraph.wrap(Wrap { trim: true });
    }
    if is_stale {
        paragraph = paragraph.style(Style::new().add_modifier(Modifier::DIM));
    }
    frame.render_widget(paragraph, area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn view(lines: u64) -> View {
        View {
            address: "127.0.0.1:9102".to_owned(),
            status: json!({
                "version": "9.9.9",
                "uptime_seconds": 61.0,
                "verdict": { "level": "critical", "text": "5.0 % of the samples were refused\u{1b}[2J." },
                "ledger": { "lines": 18000, "lost": 3, "dropped_by_reason": { "sampled": 10, "type_conflict": 3 } },
                "rates": { "lines": 412.0, "lost": 0.5 },
                "queue": { "fill": 0.5, "limit_bytes": 1 << 24 },
                "sampling": { "mode": "adaptive", "rates": [1.0, 0.512] },
                "limits": [{ "limit": "max_series", "used": 900, "most": 1000, "share": 0.9 }],
            }),
            cardinality: json!({
                "families": [
                    { "name": "bot_messages_total", "type": "counter", "sample_lines": lines,
                      "labels": [{ "name": "user_bucket", "values": 100 }] },
                    { "name": "quiet_gauge", "type": "gauge", "sample_lines": 1 },
                ],
                "labels": [{ "name": "request", "seen": 28864.4 }],
            }),
            heavy: Ok(json!({ "tag": "user_id", "values": [{ "value": "42\u{202e}", "count": 1234.0 }] })),
        }
    }

    fn screen(state: &State, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_is_on_the_screen_wide_and_narrow_and_nothing_moves_the_cursor() {
        let mut state = State::default();
        let began = Instant::now();
        state.seen(view(100), began);
        state.seen(view(107), began + Duration::from_secs(30));
        for (width, height) in [(120, 40), (80, 50)] {
            let screen = screen(&state, width, height);
            for part in [
                "statsieve 9.9.9 at 127.0.0.1:9102, up 1 min 1 s",
                "critical: 5.0 % of the samples were refused\\u{1b}[2J.",
                "lines      412/s, 18,000 in all",
                "buffer     [#####.....] 50 % of 16.0 MiB",
                "sampling   keeps 51 % of the lines, weighted (adaptive)",
                "series     [#########.] 900 of 1,000",
                "widest     label request, about 28,864 values",
                "3  type_conflict     another name",
                "in 30 s",
                "+7  user_bucket 100",
                "Heavy hitters of user_id",
                "1,234  42\\u{202e}",
                "q quit   s sort (cost)   p pause",
            ] {
                assert!(screen.contains(part), "{part} in\n{screen}");
            }
        }
        // So small a screen shows what fits, and no panic.
        for (width, height) in [(1, 1), (20, 5), (300, 3)] {
            screen(&state, width, height);
        }
    }

    #[test]
    fn keys_sort_pause_and_end() {
        let mut state = State::default();
        let began = Instant::now();
        state.seen(view(100), began);
        state.seen(view(90), began + Duration::from_secs(90));
        state.seen(view(95), began + Duration::from_secs(120));
        assert_eq!(state.growth.of("bot_messages_total", 95), Some(-5), "the first look is still a minute old");
        let press = |code| KeyEvent::new(code, KeyModifiers::NONE);
        assert!(!state.ends_by(press(KeyCode::Char('s'))));
        let shown = screen(&state, 120, 40);
        assert!(
            shown.contains("Families by growth") && shown.find("quiet_gauge") < shown.find("bot_messages"),
            "{shown}"
        );
        assert!(!state.ends_by(press(KeyCode::Char('p'))) && state.is_paused);
        for key in [press(KeyCode::Char('q')), press(KeyCode::Esc)] {
            assert!(state.ends_by(key));
        }
        assert!(state.ends_by(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!state.ends_by(press(KeyCode::Char('c'))));
    }

    #[test]
    fn a_sidecar_that_is_away_is_waited_for_with_what_it_told_last() {
        let mut state = State { address: "bot:9102".to_owned(), ..State::default() };
        state.away = Some((Instant::now(), "connection refused".to_owned()));
        let shown = screen(&state, 100, 10);
        assert!(shown.contains("waiting for bot:9102") && shown.contains("waiting: connection refused"), "{shown}");
        state.view = Some(view(1));
        let shown = screen(&state, 120, 40);
        assert!(shown.contains("bot_messages_total") && shown.contains("no answer for 0 s"), "{shown}");
    }
}
