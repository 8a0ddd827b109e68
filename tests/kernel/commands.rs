//! What the owner of one scheduler asks of agents between runs, and errors that agents report.

use maslite_core::{
    Agent, AgentId, CommandError, Context, Mail, Refusal, Run, Scheduler, StopReason,
};

#[derive(Clone, Debug, PartialEq, maslite_core::Message)]
enum Msg {
    Paint,
    Colour(&'static str),
}

/// Reads its mail one by one, and does not like everything.
struct Painter {
    colour: &'static str,
    painted: u32,
}

impl Agent<Msg> for Painter {
    fn update(&mut self, ctx: &mut Context<'_, Msg>) {
        if ctx.next_mail().is_some() {
            self.painted += 1;
            if self.colour == "pink" {
                ctx.report_error("pink again");
            }
        }
    }

    fn command(&mut self, request: Msg) -> Result<Msg, Refusal> {
        match request {
            Msg::Colour(colour) => {
                let before = std::mem::replace(&mut self.colour, colour);
                Ok(Msg::Colour(before))
            }
            Msg::Paint => Err(Refusal::new("not without mail")),
        }
    }
}

struct Visitor;

impl Agent<Msg> for Visitor {}

fn painter(colour: &'static str) -> Painter {
    let painted = 0;
    Painter { colour, painted }
}

fn studio(mails: usize) -> Scheduler<Msg> {
    let mut scheduler = Scheduler::new();
    scheduler.add(1, painter("red")).unwrap();
    scheduler.add(2, Visitor).unwrap();
    for _ in 0..mails {
        scheduler.send_mail(Mail::new(2, AgentId::from(1), Msg::Paint));
    }
    scheduler
}

#[test]
fn an_agent_answers_or_says_why_not() {
    let mut scheduler = studio(0);
    let before = scheduler.command(1, Msg::Colour("blue"));
    assert_eq!(before, Ok(Msg::Colour("red")));
    let before = scheduler.command(1, Msg::Colour("green"));
    assert_eq!(before, Ok(Msg::Colour("blue")));
    let refused = scheduler.command(1, Msg::Paint).unwrap_err();
    assert_eq!(refused.to_string(), "agent 1 refuses: not without mail");
    let refused = scheduler.command(2, Msg::Paint).unwrap_err();
    assert!(matches!(refused, CommandError::Refused { .. }));
    let unknown = scheduler.command(3, Msg::Paint).unwrap_err();
    assert_eq!(unknown, CommandError::UnknownAgent(3.into()));
    let agents = scheduler.agents().unwrap().into_iter();
    let types: Vec<_> = agents.map(|agent| agent.type_name).collect();
    assert!(types[0].ends_with("Painter") && types[1].ends_with("Visitor"));
}

#[test]
fn an_agent_taken_out_leaves_what_it_did_not_read() {
    let mut scheduler = studio(5);
    scheduler.run(Run::until_idle().supersteps(2)).unwrap();
    let wrong = scheduler.take_out::<Visitor>(1).err();
    assert!(matches!(wrong, Some(CommandError::WrongType { .. })));
    assert_eq!(scheduler.take_out::<Painter>(1).unwrap().painted, 2);
    assert!(scheduler.take_out::<Painter>(1).is_err());
    let report = scheduler.run(Run::until_idle()).unwrap();
    let counters = report.total;
    assert_eq!((counters.delivered, counters.undeliverable), (2, 3));
    assert_eq!((counters.queued, counters.agents), (0, 1));
}

#[test]
fn a_replacement_goes_on_with_the_inbox() {
    let mut scheduler = studio(5);
    scheduler.run(Run::until_idle().supersteps(2)).unwrap();
    scheduler.replace(1, painter("green")).unwrap();
    scheduler.run(Run::until_idle()).unwrap();
    let painter: &Painter = scheduler.agent(1).unwrap();
    assert_eq!((painter.colour, painter.painted), ("green", 3));
    assert!(scheduler.replace(9, Visitor).is_err());
}

#[test]
fn errors_are_collected_and_may_stop_the_run() {
    let mut scheduler = studio(3);
    scheduler.command(1, Msg::Colour("pink")).unwrap();
    let report = scheduler.run(Run::until_idle().stop_at_error()).unwrap();
    assert_eq!(report.stopped_by, StopReason::AgentError(1.into()));
    let text = "agent 1 at 0 s, superstep 0: pink again";
    assert_eq!(report.errors[0].to_string(), text);
    let report = scheduler.run(Run::until_idle()).unwrap();
    assert_eq!(report.stopped_by, StopReason::Idle);
    assert_eq!((report.errors.len(), report.total.errors), (2, 3));
}
