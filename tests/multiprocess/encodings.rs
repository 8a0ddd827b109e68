//! A message that is not read as it was written is an error that names it; it never becomes other mail.

use maslite_mp::Error;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ground::{ALL, Ground, Grounded};

/// What the agents of these tests send to each other. Agent 1000 sends it when it begins.
#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    Begin,
    Pay {
        amount: u8,
    },
    Note {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        more: Option<u8>,
        text: u8,
    },
    /// Reads one byte more than it wrote.
    Greedy(Greedy),
    /// Reads one byte less than it wrote.
    Modest(Modest),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "(u8, u8)", into = "u8")]
struct Greedy;

impl From<(u8, u8)> for Greedy {
    fn from(_: (u8, u8)) -> Self {
        Self
    }
}

impl From<Greedy> for u8 {
    fn from(_: Greedy) -> Self {
        7
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "u8", into = "(u8, u8)")]
struct Modest;

impl From<u8> for Modest {
    fn from(_: u8) -> Self {
        Self
    }
}

impl From<Modest> for (u8, u8) {
    fn from(_: Modest) -> Self {
        (7, 7)
    }
}

/// Sends payments with something between them to agents 7 and 256, or to main.
#[derive(Serialize, Deserialize)]
struct Payer {
    to: [AgentId; 2],
    between: Between,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Between {
    Nothing,
    Note,
    Greedy,
    Modest,
}

impl Agent<Msg> for Payer {
    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        for to in self.to {
            ctx.send(to, Msg::Pay { amount: 1 });
            let between = match self.between {
                Between::Nothing => continue,
                Between::Note => Msg::Note {
                    more: None,
                    text: 1,
                },
                Between::Greedy => Msg::Greedy(Greedy),
                Between::Modest => Msg::Modest(Modest),
            };
            ctx.send(to, between);
            ctx.send(to, Msg::Pay { amount: 2 });
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Payee;

impl Agent<Msg> for Payee {
    fn receive(&mut self, mail: Mail<Msg>, _: &mut Context<'_, Msg>) {
        assert_eq!(mail.sender, AgentId::from(1000), "{mail:?}");
    }
}

fn agents() -> Entered<Msg> {
    let registry = Registry::new().with::<Payer>().with::<Payee>();
    registry.entered_by_test("encodings::child").enter()
}

#[test]
#[ignore = "where child processes start"]
fn child() {
    let _ = agents();
}

fn pay(ground: Ground, to_main: bool, between: Between) -> Result<MpReport, Error> {
    let mut main = MpMain::new(agents())?.on(ground).with_digest();
    let clusters = [main.new_scheduler(), main.new_scheduler()];
    let to = match to_main {
        false => [7, 256].map(AgentId::from),
        true => [AgentId::MAIN; 2],
    };
    main.add(clusters[0], 1000, Payer { to, between })?;
    for id in [1, 7, 256] {
        main.add(clusters[1], id, Payee)?;
    }
    main.send(Mail::new(AgentId::MAIN, AgentId::from(1000), Msg::Begin));
    main.run_with(Run::until_idle(), |mail, _| {
        assert_eq!(mail.sender, AgentId::from(1000), "{mail:?}");
    })
}

#[test]
fn mail_of_one_batch_is_right() {
    for ground in ALL {
        let report = pay(ground, false, Between::Nothing).unwrap();
        assert_eq!(report.counters.delivered, 3, "{ground:?}");
    }
}

#[test]
fn a_field_that_is_left_out_is_an_error_at_its_mail() {
    for ground in ALL {
        for (to_main, receiver) in [(false, "agent 7"), (true, "agent main")] {
            let error = pay(ground, to_main, Between::Note).unwrap_err();
            let Error::EncodeInCluster { cluster, what, why } = &error else {
                panic!("{error}");
            };
            assert_eq!(cluster, "1");
            assert_eq!(
                what,
                &format!("message Note of agent 1000 to {receiver}, sent at 0 s,")
            );
            assert_eq!(
                why,
                "its field `more` is left out (`skip_serializing_if`), \
                 so another one would be read in its place"
            );
        }
    }
}

#[test]
fn mail_that_reads_other_than_it_wrote_is_an_error_that_names_it() {
    for ground in ALL {
        for (to_main, receiver, cluster) in [(false, "agent 7", "2"), (true, "agent main", "1")] {
            for (between, name, reason) in [
                (
                    Between::Greedy,
                    "Greedy",
                    "Hit the end of buffer, expected more data",
                ),
                (Between::Modest, "Modest", "1 bytes are left over behind it"),
            ] {
                let error = pay(ground, to_main, between).unwrap_err();
                let Error::Decode {
                    cluster: by,
                    what,
                    why,
                } = &error
                else {
                    panic!("{error}");
                };
                assert_eq!((&by[..], &why[..]), (cluster, reason), "{ground:?}");
                let addresses = format!("of agent 1000 to {receiver}, sent at 0 s,");
                assert_eq!(what, &format!("message Msg::{name}(_) {addresses}"));
            }
        }
    }
}
