//! A malformed scenario is refused with its path, line, column and reason.

use std::path::Path;

use maslite_testkit::scenario::file::Scenario;

const GOOD: &str = r#"{
  "clusters": [[1, 3], [2]],
  "agents": [
    {"id": 1,
     "subscribe": [{"topic": "B"}, {"sender": 2, "topic": "A"}],
     "rules": [
       {"on": "A", "do": [{"send": {"to": 2, "topic": "B"}},
                          {"alarm": {"after_ms": 250, "to": 3, "topic": "C"}}]}
     ]},
    {"id": 2, "subscribe": [], "rules": []},
    {"id": 3, "subscribe": [], "rules": []}
  ],
  "start": [{"from": 1, "to": 1, "topic": "A", "ttl": 9}],
  "run": {"until_ms": 2500}
}"#;

fn parse(bytes: &[u8]) -> Result<Scenario, String> {
    Scenario::parse(Path::new("m.json"), bytes).map_err(|error| error.to_string())
}

/// Reads the good file with one thing changed.
fn refusal(old: &str, new: &str) -> String {
    let text = GOOD.replacen(old, new, 1);
    assert_ne!(text, GOOD, "nothing was changed");
    parse(text.as_bytes()).expect_err(&format!("{new} was accepted"))
}

#[test]
fn a_good_file_is_read() {
    let scenario = parse(GOOD.as_bytes()).unwrap();
    assert_eq!(scenario.agents.len(), 3);
    assert_eq!(scenario.run.until_ms, Some(2_500));
}

#[test]
fn what_the_specification_runs_is_accepted() {
    for (old, new) in [
        (r#""from": 1"#, r#""from": 77"#),
        (r#""to": 1,"#, r#""to": null,"#),
        (r#"{"until_ms": 2500}"#, "{}"),
        ("2500", "0"),
        ("250,", "0,"),
        (r#""to": 2"#, r#""to": 99"#),
        (r#""topic": "B"}},"#, r#""topic": "B", "direct": true}},"#),
        (
            r#"{"topic": "B"}"#,
            r#"{"topic": "B", "sender": 3, "receiver": 2}"#,
        ),
        (r#""ttl": 9"#, r#""ttl": 0"#),
        (r#"[{"from": 1, "to": 1, "topic": "A", "ttl": 9}]"#, "[]"),
        ("[[1, 3], [2]]", "[[3], [], [2, 1]]"),
    ] {
        let text = GOOD.replacen(old, new, 1);
        assert_ne!(text, GOOD, "nothing was changed");
        if let Err(error) = parse(text.as_bytes()) {
            panic!("{new}: {error}");
        }
    }
}

#[test]
fn ids_and_clusters_must_fit_together() {
    for (old, new, reason) in [
        (
            r#""id": 3"#,
            r#""id": 2"#,
            "m.json:11:5: a second agent 2: give it an id of its own",
        ),
        (
            "[2]]",
            "[2, 1]]",
            "m.json:2:28: agent 1 is in a cluster already: name it once",
        ),
        (
            "[2]]",
            "[2, 2]]",
            "m.json:2:28: agent 2 is in a cluster already: name it once",
        ),
        (
            "[2]]",
            "[]]",
            "m.json:10:5: agent 2 is in no cluster: name it in one of `clusters`",
        ),
        (
            "[2]]",
            "[2], [9]]",
            "m.json:2:30: no agent 9: describe it in `agents` or name another",
        ),
        (
            r#""to": 2, "topic": "B"}}"#,
            r#""to": null, "topic": "B", "direct": true}}"#,
            "m.json:4:5: agent 1 sends directly to nobody: give the `send` a receiver in `to`",
        ),
    ] {
        assert_eq!(refusal(old, new), reason);
    }
}

#[test]
fn every_value_has_its_range() {
    let id = "an agent's id: an integer from 1 to 2^63 - 1; --help shows the format";
    let ms = "milliseconds: an integer from 0 to 2^64 / 10^6; --help shows the format";
    for (old, new, reason) in [
        (r#""id": 1"#, r#""id": 0"#, format!("m.json:4:12: invalid value: integer `0`, expected {id}")),
        (r#""id": 1"#, r#""id": -1"#, format!("m.json:4:13: invalid type: integer `-1`, expected {id}")),
        (r#""id": 1"#, r#""id": 1.5"#, format!("m.json:4:14: invalid type: floating point `1.5`, expected {id}")),
        (r#""id": 1"#, r#""id": "1""#, format!("m.json:4:14: invalid type: string \"1\", expected {id}")),
        (r#""id": 1"#, r#""id": 9223372036854775808"#, format!("m.json:4:30: invalid value: integer `9223372036854775808`, expected {id}")),
        ("250,", "-1,", format!("m.json:8:51: invalid type: integer `-1`, expected {ms}")),
        ("250,", "18446744073710,", format!("m.json:8:63: invalid value: integer `18446744073710`, expected {ms}")),
        ("2500", "-1", format!("m.json:14:24: invalid type: integer `-1`, expected {ms}")),
        ("9}", "-1}", "m.json:13:56: invalid type: integer `-1`, expected a ttl: an integer from 0; --help shows the format".to_owned()),
    ] {
        assert_eq!(refusal(old, new), reason);
    }
}

#[test]
fn fields_and_actions_must_be_known_and_complete() {
    for (old, new, reason) in [
        (
            r#""start""#,
            r#""strat""#,
            "m.json:13:9: unknown field `strat`, expected one of `clusters`, `agents`, `start`, \
             `run`, `between`",
        ),
        (
            r#""run": {"until_ms": 2500}"#,
            r#""run": {"untill_ms": 2500}"#,
            "m.json:14:21: unknown field `untill_ms`, expected one of `until_ms`, \
             `supersteps_per_instant`, `stop_on`",
        ),
        (
            r#""alarm""#,
            r#""alram""#,
            "m.json:8:34: unknown variant `alram`, expected one of `send`, `reply`, `broadcast`, \
             `alarm`, `subscribe`, `unsubscribe`, `spawn`, `remove`, `clear`, `pause`, `panic`, `spin`, `keep`",
        ),
        (
            r#"{"to": 2, "topic": "B"}"#,
            r#"{"topic": "B"}"#,
            "m.json:7:49: missing field `to`",
        ),
        (
            r#"{"to": 2, "topic": "B"}"#,
            r#"{"to": 2, "topic": "B", "after_ms": 3}"#,
            "m.json:7:69: unknown field `after_ms`, expected one of `to`, `topic`, `direct`",
        ),
        (
            r#"{"topic": "B"},"#,
            "{},",
            "m.json:5:23: an empty pattern: name a `sender`, a `receiver` or a `topic`",
        ),
        (
            r#"{"send": {"to": 2, "topic": "B"}}"#,
            r#"{"send": {"to": 2, "topic": "B"}, "reply": {"topic": "B"}}"#,
            "m.json:7:58: expected value",
        ),
    ] {
        assert_eq!(
            refusal(old, new),
            format!("{reason}; --help shows the format")
        );
    }
}

/// The good file with what plain scenarios cannot say.
const EXTENDED: &str = r#"{
  "clusters": [[1], [90, 91]],
  "agents": [
    {"id": 1, "subscribe": [{"receiver": 0}], "at_most": 2,
     "setup": [{"keep": {"awake": true}}],
     "teardown": [{"send": {"to": 0, "topic": "A"}}],
     "rules": [{"on": "A", "do": [{"spawn": {}}, {"spawn": {"id": 7000}}, {"remove": {"id": 0}},
       {"clear": {}}, {"clear": {"to": null}}, {"clear": {"topic": "A", "to": 3}}, {"pause": {}},
       {"panic": {"unless": "B"}},
       {"spin": {"until": "B", "most": 30}}]}]}
  ],
  "start": [],
  "run": {"supersteps_per_instant": 60, "stop_on": "F"},
  "between": [[],
    [{"add": {"id": 90, "subscribe": [], "rules": []}}, {"remove": {"id": 1}},
     {"add": {"id": 91, "subscribe": [], "rules": []}},
     {"send": {"from": 0, "to": 90, "topic": "A", "ttl": 3}}]]
}"#;

#[test]
fn an_extended_file_is_read_and_written() {
    let scenario = parse(EXTENDED.as_bytes()).unwrap();
    assert_eq!(scenario.between[1].len(), 4);
    assert_eq!(scenario.run.supersteps_per_instant, Some(60));
    let ids: Vec<u64> = scenario.scripts().map(|(_, script)| script.id).collect();
    assert_eq!(ids, [1, 90, 91]);
    let written = serde_json::to_string(&scenario).unwrap();
    assert_eq!(parse(written.as_bytes()), Ok(scenario));
}

/// Replaces a part of the extended file, and compares why it is refused then.
fn assert_refused((old, new, reason): (&str, &str, String)) {
    let text = EXTENDED.replacen(old, new, 1);
    assert_ne!(text, EXTENDED, "nothing was changed");
    let refusal = parse(text.as_bytes()).expect_err(&format!("{new} was accepted"));
    assert_eq!(refusal, reason);
}

#[test]
fn a_wrong_value_in_an_extended_file_has_its_place() {
    let help = "; --help shows the format";
    let changes = [
        (
            r#""at_most": 2"#,
            r#""at_most": 0"#,
            format!(
                "m.json:4:58: invalid value: integer `0`, expected how much mail: an integer from 1{help}"
            ),
        ),
        (
            r#"{"spawn": {"id": 7000}}"#,
            r#"{"spawn": {"id": 0}}"#,
            format!(
                "m.json:7:67: invalid value: integer `0`, expected an agent's id: an integer from 1 to 2^63 - 1{help}"
            ),
        ),
        (
            r#"{"pause": {}}"#,
            r#"{"pause": {"now": 1}}"#,
            format!("m.json:8:99: unknown field `now`, there are no fields{help}"),
        ),
        (
            r#"{"panic": {"unless": "B"}}"#,
            r#"{"panic": {}}"#,
            format!("m.json:9:19: missing field `unless`{help}"),
        ),
        (
            r#""most": 30"#,
            r#""most": -1"#,
            format!(
                "m.json:10:41: invalid type: integer `-1`, expected how often: an integer from 0{help}"
            ),
        ),
        (
            r#""awake": true"#,
            r#""awake": 1"#,
            format!("m.json:5:35: invalid type: integer `1`, expected a boolean{help}"),
        ),
    ];
    changes.into_iter().for_each(assert_refused);
}

#[test]
fn a_wrong_agent_in_an_extended_file_has_its_place() {
    let help = "; --help shows the format";
    let changes = [
        (
            r#"{"remove": {"id": 1}}"#,
            r#"{"remove": {"id": 0}}"#,
            format!(
                "m.json:15:75: invalid value: integer `0`, expected an agent's id: an integer from 1 to 2^63 - 1{help}"
            ),
        ),
        (
            r#"{"id": 91"#,
            r#"{"id": 1"#,
            "m.json:16:6: a second agent 1: give it an id of its own".to_owned(),
        ),
        (
            "[90, 91]",
            "[90]",
            "m.json:16:6: agent 91 is in no cluster: name it in one of `clusters`".to_owned(),
        ),
        (
            r#""to": 0, "topic": "A"}}]"#,
            r#""to": null, "topic": "A", "direct": true}}]"#,
            "m.json:4:5: agent 1 sends directly to nobody: give the `send` a receiver in `to`"
                .to_owned(),
        ),
    ];
    changes.into_iter().for_each(assert_refused);
}

#[test]
fn text_that_is_no_json_is_refused_where_it_breaks() {
    let mut latin1 = GOOD.as_bytes().to_vec();
    let place = GOOD.find(r#""C""#).unwrap() + 1;
    latin1[place] = 0xe9;
    assert_eq!(
        parse(&latin1).unwrap_err(),
        "m.json:8:74: not UTF-8: save the file as UTF-8"
    );
    assert_eq!(
        parse(b"").unwrap_err(),
        "m.json:1:1: EOF while parsing a value; --help shows the format"
    );
    assert_eq!(
        parse(format!("{GOOD} {{}}").as_bytes()).unwrap_err(),
        "m.json:15:3: trailing characters; --help shows the format"
    );
}
