//! Unit tests.

use std::sync::Mutex;

use super::*;

type Shown = Arc<Mutex<Vec<u8>>>;

/// A pump, and what it has passed on.
fn pump() -> (Pump, Shown) {
    let shown = Shown::default();
    let sink = Arc::clone(&shown);
    let pump = Pump::start_into(Box::new(move |kind, bytes| {
        assert!(bytes.ends_with(b"\n"), "whole lines");
        let mut shown = sink.lock().expect("no panic");
        // On stderr without a mark.
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if kind == StreamKind::Out {
                shown.extend_from_slice(b"out ");
            }
            shown.extend_from_slice(line);
        }
    }));
    (pump.expect("a thread can be had"), shown)
}

/// A child of this name: the ends of its stdout and stderr.
fn child(pump: &mut Pump, name: &str, recorder: Option<Recorder>) -> (Outlet, [PipeWriter; 2]) {
    let (out, stdout) = io::pipe().expect("a pipe can be had");
    let (err, stderr) = io::pipe().expect("a pipe can be had");
    let streams = vec![(StreamKind::Out, out.into()), (StreamKind::Err, err.into())];
    let outlet = pump.attach(name, streams, true, recorder, None);
    (outlet.expect("it can"), [stdout, stderr])
}

fn text(shown: &Shown) -> String {
    String::from_utf8(shown.lock().expect("no panic").clone()).expect("ASCII")
}

#[test]
fn lines_of_several_children_are_whole_and_have_names() {
    let (mut pump, shown) = pump();
    let (_north, [north, _n]) = child(&mut pump, "north", None);
    let (_south, [_s, south]) = child(&mut pump, "south", None);
    for (mut writer, piece) in [
        (&north, "one, "),
        (&south, "eins, "),
        (&south, "zwei\ndr"),
        (&north, "two\n\nthr"),
        (&south, "ei\n"),
    ] {
        writer.write_all(piece.as_bytes()).expect("it is read");
        pump.settle();
    }
    assert_eq!(
        text(&shown),
        "[south] eins, zwei\nout [north] one, two\nout [north] \n[south] drei\n"
    );
}

#[test]
fn what_was_printed_before_the_end_is_passed_on_and_kept() {
    let (mut pump, shown) = pump();
    let (outlet, [mut out, mut err]) = child(&mut pump, "north", None);
    out.write_all(b"no newline").expect("it is read");
    err.write_all(b"alas\nfare").expect("it is read");
    // Another process still holds the ends; it is not waited for.
    assert_eq!(outlet.close().wait(None), "alas\nfare");
    let mut lines: Vec<String> = text(&shown).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["[north] alas", "[north] fare", "out [north] no newline"]
    );
    assert_eq!(outlet.close().wait(None), "");
    let refused = out.write_all(b"a ghost\n").expect_err("nobody reads");
    assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_long_line_comes_in_marked_pieces() {
    let (mut pump, shown) = pump();
    let (outlet, [mut out, _err]) = child(&mut pump, "n", None);
    for length in [LINE - 1, LINE, LINE + 1, 3 * LINE] {
        out.write_all(&vec![b'x'; length]).expect("it is read");
        out.write_all(b"\n.\n").expect("it is read");
        pump.settle();
        let shown = mem::take(&mut *shown.lock().expect("no panic"));
        let shown = String::from_utf8(shown).expect("ASCII");
        let lengths: Vec<_> = shown
            .lines()
            .map(|line| line.strip_prefix("out [n]").expect("a prefix"))
            .map(|line| {
                (
                    line.starts_with('+'),
                    line.trim_start_matches('+').len() - 1,
                )
            })
            .collect();
        let mut expected = vec![(false, length.min(LINE))];
        let pieces = length.div_ceil(LINE);
        for piece in 1..pieces {
            expected.push((true, (length - piece * LINE).min(LINE)));
        }
        expected.push((false, 1));
        assert_eq!(lengths, expected, "{length} bytes");
    }
    assert_eq!(outlet.close().wait(None), "");
}

#[test]
fn a_flood_is_drained_and_its_end_is_kept() {
    let (mut pump, shown) = pump();
    let (outlet, [_out, mut err]) = child(&mut pump, "n", None);
    for number in 0..200_000 {
        writeln!(err, "{number:06}").expect("it is read");
    }
    let tail = outlet.close().wait(None);
    assert_eq!(tail.len(), TAIL);
    assert!(tail.ends_with("199998\n199999\n"));
    assert_eq!(text(&shown).lines().count(), 200_000);
}

#[test]
fn records_are_told_from_text_wherever_they_stand() {
    let (mut pump, shown) = pump();
    let records = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&records);
    let recorder = move |name: &str, record: &[u8]| {
        let record = String::from_utf8_lossy(record).into_owned();
        let is_record = record.starts_with('{');
        if is_record {
            heard
                .lock()
                .expect("no panic")
                .push(format!("{name} {record}"));
        }
        is_record
    };
    let (outlet, [_out, mut err]) = child(&mut pump, "n", Some(Box::new(recorder)));
    for piece in [
        &b"ab\x1E{1}\ncd\n"[..],
        b"\x1E{",
        b"2}\n\x1E{3}\n",
        b"x\x1Ey\n",
        b"\x1E{4",
    ] {
        err.write_all(piece).expect("it is read");
        pump.settle();
    }
    assert_eq!(outlet.close().wait(None), "abcd\nx\x1Ey\n\x1E{4");
    assert_eq!(text(&shown), "[n] abcd\n[n] x\x1Ey\n[n] \x1E{4\n");
    assert_eq!(
        *records.lock().expect("no panic"),
        ["n {1}", "n {2}", "n {3}"]
    );
}

#[test]
fn what_is_not_shown_is_kept() {
    let (mut pump, shown) = pump();
    let (err, mut stderr) = io::pipe().expect("a pipe can be had");
    let outlet = pump.attach("n", vec![(StreamKind::Err, err.into())], false, None, None);
    stderr.write_all(b"alas\n").expect("it is read");
    assert_eq!(outlet.expect("it can").close().wait(None), "alas\n");
    assert_eq!(text(&shown), "");
}

#[test]
fn a_process_that_comes_back_prints_no_line_twice_and_loses_none() {
    let (mut pump, shown) = pump();
    let mut printed = Printed::default();
    let mut said = |text: &str, is_last: bool| {
        let (out, mut stdout) = io::pipe().expect("a pipe can be had");
        let streams = vec![(StreamKind::Out, out.into())];
        let outlet = pump.attach("n", streams, true, None, Some(printed));
        let outlet = outlet.expect("it can");
        stdout.write_all(text.as_bytes()).expect("it is read");
        drop(stdout);
        let closing = if is_last {
            outlet.close()
        } else {
            outlet.close_for_another()
        };
        printed = printed.max(closing.wait_for_all(None).1);
    };
    said("one\ntwo\nthr", false);
    // It dies while it comes back.
    said("one\n", false);
    said("one\ntwo\nthree\n", false);
    said("one\ntwo\nthree\nfour\nfi", true);
    assert_eq!(
        text(&shown),
        "out [n] one\nout [n] two\nout [n] three\nout [n] four\nout [n] fi\n"
    );
}

#[test]
fn a_process_that_comes_back_records_nothing_twice_and_loses_nothing() {
    let (mut pump, shown) = pump();
    let records = Arc::new(Mutex::new(Vec::new()));
    let mut printed = Printed::default();
    let mut said = |text: &str| {
        let (err, mut stderr) = io::pipe().expect("a pipe can be had");
        let kept = Arc::clone(&records);
        let recorder: Recorder = Box::new(move |name, record| {
            let record = String::from_utf8_lossy(record);
            let mut kept = kept.lock().expect("no panic");
            kept.push(format!("{name} {record}"));
            true
        });
        let streams = vec![(StreamKind::Err, err.into())];
        let outlet = pump.attach("n", streams, true, Some(recorder), Some(printed));
        stderr.write_all(text.as_bytes()).expect("it is read");
        drop(stderr);
        let closing = outlet.expect("it can").close_for_another();
        printed = printed.max(closing.wait_for_all(None).1);
    };
    said("\x1E{1}\none\n\x1E{2}\n");
    // It dies while it comes back.
    said("\x1E{1}\n");
    said("\x1E{1}\none\n\x1E{2}\n\x1E{3}\ntwo\n");
    let records = records.lock().expect("no panic");
    assert_eq!(*records, ["n {1}", "n {2}", "n {3}"]);
    assert_eq!(text(&shown), "[n] one\n[n] two\n");
}
