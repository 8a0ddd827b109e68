//! A message that is not read as it was written is an error that names it; it never becomes other
//! mail.

use maslite_mp::Error;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

use crate::test_placement::{ALL, PlacedOn, TestPlacement};

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
        text: Coy,
    },
    Greedy(Greedy),
    Modest(Modest),
    Swapped(Swapped),
}

/// A number that cannot be made up, so that types with it show what they are when there is a value
/// of them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
struct Coy(u8);

impl TryFrom<u8> for Coy {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        if number < 100 {
            Err("too small")
        } else {
            Ok(Self(number))
        }
    }
}

impl From<Coy> for u8 {
    fn from(coy: Coy) -> Self {
        coy.0
    }
}

/// Reads one byte more than it wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "(Coy, u8)", into = "Coy")]
struct Greedy;

impl From<(Coy, u8)> for Greedy {
    fn from(_: (Coy, u8)) -> Self {
        Self
    }
}

impl From<Greedy> for Coy {
    fn from(_: Greedy) -> Self {
        Self(200)
    }
}

/// Reads one byte less than it wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Coy", into = "(Coy, u8)")]
struct Modest;

impl From<Coy> for Modest {
    fn from(_: Coy) -> Self {
        Self
    }
}

impl From<Modest> for (Coy, u8) {
    fn from(_: Modest) -> Self {
        (Coy(200), 7)
    }
}

/// Reads two numbers in another order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "(Coy, Coy)", into = "(Coy, Coy)")]
struct Swapped(Coy, Coy);

impl From<(Coy, Coy)> for Swapped {
    fn from((second, first): (Coy, Coy)) -> Self {
        Self(first, second)
    }
}

impl From<Swapped> for (Coy, Coy) {
    fn from(swapped: Swapped) -> Self {
        (swapped.0, swapped.1)
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
    Swapped,
}

impl Agent<Msg> for Payer {
    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        for to in self.to {
            ctx.send(to, Msg::Pay { amount: 1 });
            let between = match self.between {
                Between::Nothing => continue,
                Between::Note => Msg::Note {
                    more: None,
                    text: Coy(101),
                },
                Between::Greedy => Msg::Greedy(Greedy),
                Between::Modest => Msg::Modest(Modest),
                Between::Swapped => Msg::Swapped(Swapped(Coy(100), Coy(101))),
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

/// Where those live that are paid: in a cluster of their own, with the payer, or in main.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payees {
    Elsewhere,
    Here,
    Main,
}

fn pay(placement: TestPlacement, payees: Payees, between: Between) -> Result<MpReport, Error> {
    // A cluster that forgets meets messages that cannot be read before the agents send them on.
    let settings = MpMain::builder(agents()).amnesia(None).on(placement);
    let mut main = settings.digest().build()?;
    let clusters = [main.new_cluster(), main.new_cluster()];
    let to = match payees {
        Payees::Main => [AgentId::MAIN; 2],
        _ => [7, 256].map(AgentId::from),
    };
    main.add_to(clusters[0], 1000, Payer { to, between })?;
    for id in [1, 7, 256] {
        main.add_to(clusters[usize::from(payees != Payees::Here)], id, Payee)?;
    }
    main.send(1000, Msg::Begin);
    main.run_with(Run::until_idle(), |mail, _| {
        assert_eq!(mail.sender, AgentId::from(1000), "{mail:?}");
    })
}

#[test]
fn mail_of_one_batch_is_right() {
    for placement in ALL {
        let report = pay(placement, Payees::Elsewhere, Between::Nothing).unwrap();
        assert_eq!(report.total.delivered, 3, "{placement:?}");
    }
}

#[test]
fn a_field_that_is_left_out_is_an_error_at_its_mail() {
    for placement in ALL {
        for (payees, receiver) in [(Payees::Elsewhere, "agent 7"), (Payees::Main, "agent main")] {
            let error = pay(placement, payees, Between::Note).unwrap_err();
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
fn mail_that_cannot_be_read_is_an_error_that_names_it() {
    for placement in ALL {
        for (payees, receiver, cluster) in [
            (Payees::Elsewhere, "agent 7", "2"),
            (Payees::Main, "agent main", "1"),
        ] {
            for (between, name, reason) in [
                (
                    Between::Greedy,
                    "Greedy",
                    "Hit the end of buffer, expected more data",
                ),
                (Between::Modest, "Modest", "1 bytes are left over behind it"),
            ] {
                let error = pay(placement, payees, between).unwrap_err();
                let Error::Decode {
                    cluster: by,
                    what,
                    why,
                } = &error
                else {
                    panic!("{error}");
                };
                assert_eq!((&by[..], &why[..]), (cluster, reason), "{placement:?}");
                let addresses = format!("of agent 1000 to {receiver}, sent at 0 s,");
                assert_eq!(what, &format!("message Msg::{name}(_) {addresses}"));
            }
        }
    }
}

#[test]
fn mail_that_is_read_as_other_mail_is_an_error_where_it_is_sent() {
    for placement in ALL {
        for (payees, receiver) in [
            (Payees::Elsewhere, "agent 7"),
            (Payees::Here, "agent 7"),
            (Payees::Main, "agent main"),
        ] {
            let error = pay(placement, payees, Between::Swapped).unwrap_err();
            let Error::Asymmetric { cluster, what, why } = &error else {
                panic!("{error}");
            };
            assert_eq!(cluster.as_deref(), Some("1"), "{placement:?}");
            let expected = format!("message Swapped of agent 1000 to {receiver}, sent at 0 s,");
            assert_eq!(what, &expected);
            assert_eq!(
                why,
                "it is written as 056465, and what is read from that is written as 056564"
            );
        }
    }
}

#[test]
fn mail_that_stays_and_cannot_be_read_is_an_error_too() {
    for placement in ALL {
        let error = pay(placement, Payees::Here, Between::Modest).unwrap_err();
        let Error::Decode { cluster, what, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(cluster, "1", "{placement:?}");
        assert_eq!(
            what,
            "message Modest of agent 1000 to agent 7, sent at 0 s,"
        );
    }
}

/// Why there can be no simulation with such messages.
fn refused<M: maslite_mp::WireMessage>() -> (String, String) {
    match MpMain::<M>::new(Registry::new().enter()).map(drop) {
        Err(Error::Asymmetric {
            cluster: None,
            what,
            why,
        }) => (what, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_variant_that_is_skipped_before_others_is_an_error_before_anything_is_sent() {
    #[derive(Clone, Serialize, Deserialize, Message)]
    #[allow(dead_code, reason = "no value is made")]
    enum Bank {
        Begin,
        #[serde(skip)]
        Cached(u64),
        Credit {
            amount: i64,
        },
        Debit {
            amount: i64,
        },
    }
    let (what, why) = refused::<Bank>();
    assert!(what.starts_with("message type "), "{what}");
    assert!(what.ends_with("::Bank"), "{what}");
    assert_eq!(
        why,
        "`Bank::Credit`: it is written as 0200, and what is read from that is written as 0300"
    );
}

#[test]
fn agents_that_are_not_read_as_they_are_written_are_an_error() {
    #[derive(Serialize, Deserialize)]
    #[allow(dead_code, reason = "no value is made")]
    struct Skipping {
        #[serde(skip_serializing, default)]
        value: u8,
        more: u8,
    }
    impl Agent<Msg> for Skipping {}

    let registry = Registry::<Msg>::new().with::<Skipping>();
    let error = MpMain::new(registry.enter()).map(drop).unwrap_err();
    // The messages of these tests show what they are only once there are some.
    let Error::Asymmetric {
        cluster: None,
        what,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert!(what.starts_with("agent type "), "{what}");
    assert!(what.ends_with("::Skipping"), "{what}");

    #[derive(Serialize, Deserialize)]
    struct Odd(Swapped);
    impl Agent<Msg> for Odd {}

    let registry = Registry::<Msg>::new().with::<Odd>();
    let mut main = MpMain::new(registry.enter()).unwrap();
    let cluster = main.new_cluster();
    let odd = Odd(Swapped(Coy(100), Coy(101)));
    let error = main.add_to(cluster, 9, odd).unwrap_err();
    let Error::Asymmetric {
        cluster: None,
        what,
        why,
    } = &error
    else {
        panic!("{error}");
    };
    assert!(what.starts_with("agent 9 of type "), "{what}");
    assert_eq!(
        why,
        "it is written as 6465, and what is read from that is written as 6564"
    );
}
