//! Another build of this program, measured in turns with this one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum;
use serde::Deserialize;

use crate::{Bench, Figure, Line, Outcome, median};

/// What is read of a line of JSON.
#[derive(Deserialize)]
struct PeerLine {
    figure: String,
    value: f64,
    unit: String,
    bare: Option<f64>,
}

/// The runs of one line: the values of this program and of the peer, and the bare loop's.
#[derive(Default)]
struct Runs {
    own: Vec<f64>,
    peer: Vec<f64>,
    bare: Vec<f64>,
}

impl Bench<'_> {
    /// Measures a figure in turns with a peer, each time in processes of its own.
    pub(crate) fn measure_beside(&self, figure: Figure, peer: &Path) -> Outcome<Vec<Line>> {
        let own = std::env::current_exe()?;
        let (mut names, mut runs) = (Vec::new(), BTreeMap::<String, Runs>::new());
        for turn in 0..self.options.runs {
            // Who comes first changes, as what a machine does before may matter.
            let both = [(own.as_path(), true), (peer, false)];
            let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
            for (program, is_own) in order.map(|place| both[place]) {
                for line in self.measure_elsewhere(figure, program)? {
                    let runs = runs.entry(line.figure.clone()).or_default();
                    if !is_own {
                        runs.peer.push(line.value);
                        continue;
                    }
                    if runs.own.is_empty() {
                        names.push((line.figure, line.unit));
                    }
                    runs.own.push(line.value);
                    runs.bare.extend(line.bare);
                }
            }
        }
        let lines = names.into_iter().map(|(name, unit)| {
            let Runs { own, peer, bare } = runs.remove(&name).unwrap_or_default();
            let ratios = own
                .iter()
                .zip(&peer)
                .map(|(own, peer)| own / peer)
                .collect();
            let value = median(own);
            let mut line = match bare.is_empty() {
                true => self.line(&name, &unit, value),
                false => self.against(&name, &unit, (value, median(bare))),
            };
            if !peer.is_empty() {
                (line.peer, line.to_peer) = (Some(median(peer)), Some(median(ratios)));
            }
            line
        });
        Ok(lines.collect())
    }

    /// Measures a figure once in another process.
    fn measure_elsewhere(&self, figure: Figure, program: &Path) -> Outcome<Vec<PeerLine>> {
        let options = self.options;
        let mut command = Command::new(program);
        command.args(["--json", "--runs", "1", "--only", &flag(figure)?]);
        command.args([
            "--waiting",
            &flag(options.waiting)?,
            "--link",
            self.carrier(),
        ]);
        command.args(["--scale", &options.scale.to_string()]);
        command.args(options.one_core.then_some("--one-core"));
        let output = command.output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{}: {}: {text}", program.display(), output.status).into());
        }
        let text = String::from_utf8(output.stdout)?;
        let lines = text.lines().map(serde_json::from_str);
        Ok(lines.collect::<Result<_, _>>()?)
    }
}

/// A value as it is written on the command line.
fn flag(value: impl ValueEnum) -> Outcome<String> {
    let value = value.to_possible_value().ok_or("a value without a name")?;
    Ok(value.get_name().to_owned())
}
