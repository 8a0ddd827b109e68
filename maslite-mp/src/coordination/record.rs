//! What clusters are told is written down, if the program wants that.

use maslite_core::SimTime;
use tracing::warn;

use crate::coordination::clusters::Clusters;
use crate::error::Error;
use crate::error::warning::Warning;
use crate::recording::Recorder;

impl Clusters {
    /// Begins the record of a cluster, whose settings have been written for it.
    pub(super) fn begin_record(&mut self, place: usize, time: SimTime) -> Result<(), Error> {
        let Some((folder, schema)) = &self.recording else {
            return Ok(());
        };
        let cluster = &mut self.list[place];
        let settings = match cluster.link.as_mut().map(|link| link.draft()) {
            Some(Ok(mut draft)) => draft.bytes().to_vec(),
            Some(Err(error)) => return Err(self.explain(place, error, time)),
            None => return Ok(()),
        };
        let recorder = Recorder::create(folder, place, &cluster.name, *schema, &settings);
        let recorder = recorder.map_err(|source| Error::Record {
            cluster: cluster.name.clone(),
            folder: folder.clone(),
            source,
        })?;
        cluster.recorder = Some(Box::new(recorder));
        Ok(())
    }

    /// Writes down what is about to be said to a cluster.
    #[cold]
    pub(super) fn record(
        &mut self,
        place: usize,
        is_to_be_answered: bool,
        time: SimTime,
    ) -> Result<(), Error> {
        let cluster = &mut self.list[place];
        let (Some(recorder), Some(link)) = (&mut cluster.recorder, &mut cluster.link) else {
            return Ok(());
        };
        let noted = match link.draft() {
            Ok(mut draft) => recorder.note(draft.bytes(), is_to_be_answered),
            Err(error) => return Err(self.explain(place, error, time)),
        };
        if let Err(why) = noted {
            let warning = Warning::RecordStopped {
                cluster: cluster.name.clone(),
                time,
                path: recorder.path.clone(),
                why: why.to_string(),
            };
            warn!(target: "maslite", "{warning}");
            self.backend.warn(warning);
        }
        Ok(())
    }
}
