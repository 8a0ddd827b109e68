//! Alarms as those who set them see them: found by their handles, listed and cleared.

use super::states::{Beside, FIXED, Hint, IS_ELSEWHERE, IS_REQUIRED, KEPT};
use super::{AlarmId, AlarmQueue, FEW_CLEARED, Load, Pack, Pending};
use crate::fetch::fetch;
use crate::{AgentId, SimTime};

impl<W: Load, P: Pack> AlarmQueue<W, P> {
    /// The alarm behind a handle of this queue, if it has neither fired nor been cleared, and is
    /// kept apart.
    pub(crate) fn pending(&mut self, id: AlarmId) -> Option<&mut Pending<W>> {
        let (node, _) = self.states.pending(id.hint)?;
        self.kept.of_node_mut(node)
    }

    /// Fetches the state of an alarm, which will be asked for.
    pub(crate) fn fetch_state(&self, hint: Hint) {
        if let Some(word) = self.states.word(hint) {
            fetch(word);
        }
    }

    /// Fetches the state of the alarm at this distance behind the next one, and what lies beside it.
    pub(crate) fn fetch_beside(&self, ahead: usize) {
        if let Some(place) = self.hand.place(ahead) {
            self.states.fetch_beside(self.pool.at(place).node);
        }
    }

    /// Whether an alarm has neither fired nor been cleared.
    pub(crate) fn is_pending(&self, hint: Hint) -> bool {
        self.states.pending(hint).is_some()
    }

    /// Notes that a pending alarm can no longer be cleared.
    pub(crate) fn fix(&mut self, hint: Hint) {
        match self.states.pending(hint) {
            Some((node, flags)) if flags & KEPT != 0 => {
                if let Some(alarm) = self.kept.of_node_mut(node) {
                    alarm.load.fix();
                }
            }
            Some((node, _)) => self.states.note(node, FIXED),
            None => {}
        }
    }

    /// Clears one alarm of `setter`. False if it fired, was cleared, or is not the setter's.
    pub(crate) fn clear(
        &mut self,
        setter: AgentId,
        id: AlarmId,
        unpack: impl Fn(P, Option<Beside>) -> W,
    ) -> bool {
        if id.setter != setter {
            return false;
        }
        match self.states.pending(id.hint) {
            None if self.states.is_hinted(id) => false,
            None => self.clear_unhinted(id, unpack),
            Some((node, flags)) if flags & KEPT != 0 => self.clear_kept(node),
            Some((_, flags)) if flags & FIXED != 0 => false,
            Some((node, flags)) => {
                self.required -= usize::from(flags & IS_REQUIRED != 0);
                self.elsewhere -= usize::from(flags & IS_ELSEWHERE != 0);
                self.count_cleared(node);
                true
            }
        }
    }

    /// Clears an alarm whose handle does not tell where it is, as one that was saved with its
    /// agent.
    #[cold]
    fn clear_unhinted(&mut self, id: AlarmId, unpack: impl Fn(P, Option<Beside>) -> W) -> bool {
        self.keep_all(unpack);
        let (setter, sequence) = id.origin();
        let mut nodes = self.kept.nodes_of_call(setter, sequence).into_iter();
        nodes.any(|node| self.clear_kept(node))
    }

    fn clear_kept(&mut self, node: u32) -> bool {
        let alarm = self.kept.of_node(node);
        if !alarm.is_some_and(|alarm| alarm.load.is_clearable()) {
            return false;
        }
        if let Some(alarm) = self.kept.clear(node) {
            self.required -= usize::from(alarm.load.is_required());
            self.elsewhere -= usize::from(alarm.load.is_elsewhere());
            self.count_cleared(node);
        }
        true
    }

    pub(super) fn count_cleared(&mut self, node: u32) {
        self.states.clear(node);
        self.pending -= 1;
        self.cleared += 1;
        if self.cleared > FEW_CLEARED && self.cleared > self.pending {
            self.sweep();
        }
    }

    /// Clears the alarms of one setter, or of all, that match; returns how many.
    pub(crate) fn clear_where(
        &mut self,
        setter: Option<AgentId>,
        unpack: impl Fn(P, Option<Beside>) -> W,
        mut matches: impl FnMut(&Pending<W>) -> bool,
    ) -> usize {
        let mut count = 0;
        for node in self.nodes_of(setter, unpack) {
            let alarm = self.kept.of_node(node);
            if alarm.is_some_and(&mut matches) && self.clear_kept(node) {
                count += 1;
            }
        }
        count
    }

    /// The alarms of one setter, or all, in the order they will fire.
    pub(crate) fn list(
        &mut self,
        setter: Option<AgentId>,
        unpack: impl Fn(P, Option<Beside>) -> W,
    ) -> Vec<(AlarmId, &Pending<W>)> {
        let nodes = self.nodes_of(setter, unpack);
        let (kept, states) = (&self.kept, &self.states);
        let alarms = nodes.into_iter().filter_map(|node| {
            let alarm = kept.of_node(node)?;
            let origin = (alarm.load.setter(), alarm.load.key().sequence());
            Some((states.handle(origin, node), alarm))
        });
        let mut list: Vec<_> = alarms.collect();
        list.sort_unstable_by_key(|(_, alarm)| (alarm.time, alarm.load.key()));
        list
    }

    /// The nodes of the alarms of one setter, or of all; they are all kept apart from now on.
    fn nodes_of(
        &mut self,
        setter: Option<AgentId>,
        unpack: impl Fn(P, Option<Beside>) -> W,
    ) -> Vec<u32> {
        self.keep_all(unpack);
        match setter {
            Some(setter) => self.kept.nodes_of(setter),
            None => self.kept.nodes(),
        }
    }

    fn keep_all(&mut self, unpack: impl Fn(P, Option<Beside>) -> W) {
        if self.packs_undoable() {
            self.unpack_where(|_| true, unpack);
        }
    }

    /// Has packed alarms kept apart instead.
    pub(crate) fn unpack_where(
        &mut self,
        mut wanted: impl FnMut(&mut P) -> bool,
        unpack: impl Fn(P, Option<Beside>) -> W,
    ) {
        let Self {
            pool, states, kept, ..
        } = self;
        for entry in pool.iter_mut() {
            let is_wanted = entry.load.as_mut().is_some_and(&mut wanted);
            if !is_wanted || states.is_cleared(entry.node) {
                continue;
            }
            if let Some(load) = entry.load.take() {
                let time = SimTime::from_nanos(entry.time);
                let load = unpack(load, states.beside(entry.node));
                entry.kept = kept.insert(entry.node, Pending { time, load });
                states.note(entry.node, KEPT);
            }
        }
    }

    /// Shows every alarm that is kept apart, in no order, and drops those of which `is_wrong` says so.
    pub(crate) fn drop_where(&mut self, mut is_wrong: impl FnMut(&mut W) -> bool) {
        for node in self.kept.nodes() {
            let Some(alarm) = self.kept.of_node_mut(node) else {
                continue;
            };
            if is_wrong(&mut alarm.load)
                && let Some(alarm) = self.kept.clear(node)
            {
                self.required -= usize::from(alarm.load.is_required());
                self.elsewhere -= usize::from(alarm.load.is_elsewhere());
                self.count_cleared(node);
            }
        }
    }

    /// Shows every alarm that is kept apart, in no order.
    pub(crate) fn for_each_kept(&mut self, visit: impl FnMut(&mut W)) {
        self.kept.iter_mut().for_each(visit);
    }
}
