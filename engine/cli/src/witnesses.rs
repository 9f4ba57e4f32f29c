//! Witnesses, as their operators publish their keys, and how many of them must have cosigned.

use clap::Args;
use placet_core::{Cosignature, CosignatureError, Witness, WitnessError, Witnesses, utc};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::print::plain;

/// Whose cosignatures are asked for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Witnesses")]
pub(crate) struct WitnessArgs {
    /// Verifier key of a witness that must have cosigned, `name+hash+base64`; repeat for several
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    witness: Vec<String>,
    /// How many of them must have cosigned, 1 to 100 [default: all of them]
    #[arg(
        long,
        value_name = "COUNT",
        requires = "witness",
        value_parser = clap::value_parser!(u16).range(1..=100)
    )]
    quorum: Option<u16>,
}

impl WitnessArgs {
    /// Whether any are asked for.
    pub(crate) fn is_given(&self) -> bool {
        !self.witness.is_empty()
    }

    /// What is asked for; none if nothing is.
    ///
    /// # Errors
    /// A key is none, or more must have cosigned than there are.
    pub(crate) fn quorum(&self) -> Result<Option<Quorum>, Failure> {
        if !self.is_given() {
            return Ok(None);
        }
        let witnesses = read(&self.witness)?;
        let known = witnesses.as_slice().len();
        let least = self.quorum.map_or(known, usize::from);
        if least > known {
            let problem =
                format!("`--quorum` is {least}, more than the witnesses that are given: {known}");
            return Err(Failure::usage(problem).hint("give a key with --witness for each of them"));
        }
        Ok(Some(Quorum { witnesses, least }))
    }
}

/// Witnesses from the texts of their keys.
///
/// # Errors
/// A text is none, or two are of one witness.
pub(crate) fn read(texts: &[String]) -> Result<Witnesses, Failure> {
    let refused = |subject: String, error: &WitnessError| {
        Failure::from_error(error).subject(&subject).with_exit(Exit::Usage)
    };
    let mut witnesses = Vec::with_capacity(texts.len());
    for text in texts {
        let witness: Result<Witness, _> = text.trim().parse();
        let shown = format!("`--witness` `{}`", plain(text));
        witnesses.push(witness.map_err(|error| refused(shown, &error))?);
    }
    Witnesses::new(witnesses).map_err(|error| refused("`--witness`:".to_owned(), &error))
}

/// So many of these.
#[derive(Debug)]
pub(crate) struct Quorum {
    witnesses: Witnesses,
    least: usize,
}

impl Quorum {
    /// Who cosigned a checkpoint, if enough did.
    ///
    /// # Errors
    /// Too few did, and who; or a line of one does not match.
    pub(crate) fn of(&self, note: &str) -> Result<Vec<Cosignature>, Failure> {
        let refused =
            |error: &CosignatureError| Failure::from_error(error).subject("the checkpoint");
        let found = self.witnesses.cosignatures(note).map_err(|error| refused(&error))?;
        if found.len() >= self.least {
            return Ok(found);
        }
        let has = |name: &str| found.iter().any(|cosignature| cosignature.witness == name);
        let names = self.witnesses.as_slice().iter().map(Witness::name);
        let (signed, missing): (Vec<&str>, Vec<&str>) = names.partition(|name| has(name));
        let list = |names: &[&str]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        let (count, least) = (found.len(), self.least);
        let what =
            format!("the checkpoint is cosigned by {count} of the witnesses, not by {least}");
        Err(Failure::new(format!(
            "{what}\nsigned by: {}\nnot by: {}",
            list(&signed),
            list(&missing)
        ))
        .hint("ask the log for one that has them, with `--witnesses`: it may take a while"))
    }
}

/// Who cosigned and when, for a program.
pub(crate) fn to_json(cosignatures: &[Cosignature]) -> Value {
    let one = |cosignature: &Cosignature| {
        let Cosignature { time, witness } = cosignature;
        json!({"witness": witness, "time": time})
    };
    cosignatures.iter().map(one).collect()
}

/// Who cosigned and when, for a person: a line for each.
pub(crate) fn to_text(cosignature: &Cosignature) -> String {
    // A witness may sign any time, also one that no calendar has.
    format!("{} at {}", plain(&cosignature.witness), utc(cosignature.time))
}
