//! What a simulated container does, read from its `command`, so that a manifest tells its own story.
//!
//! ```text
//!   command: [forever, deaf]                   runs on and ignores SIGTERM
//!   command: [exit, 1, after-ms, 3000]         ends by itself
//!   command: [forever, listen, 8080, sick-at-ms, 60000]   probes fail from the 60th second
//! ```

use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    Forever,
    /// Ends with this code after this time.
    Exit {
        code: i32,
        after: Duration,
    },
    /// Killed by the kernel for its memory after this time.
    Oom {
        after: Duration,
    },
    /// The command is not in the image: start fails with 127.
    NotFound,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub life: Life,
    /// Ignores SIGTERM.
    pub deaf: bool,
    /// From SIGTERM to the exit.
    pub stops_in: Duration,
    pub listens: Option<u16>,
    /// Probes fail before this time from the start.
    pub well_at: Duration,
    /// Probes fail from this time on.
    pub sick_at: Option<Duration>,
}

impl Script {
    /// Errors: the first word that has no meaning.
    pub fn parse(command: &[String]) -> Result<Script, String> {
        let mut script = Script {
            life: Life::Forever,
            deaf: false,
            stops_in: Duration::from_millis(20),
            listens: None,
            well_at: Duration::ZERO,
            sick_at: None,
        };
        let mut words = command.iter().map(String::as_str);
        let mut ends_after = Duration::ZERO;
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let text = words.next().unwrap_or_default();
                text.parse()
                    .map_err(|_| format!("{word} {text:?}: no number"))
            };
            match word {
                "forever" => script.life = Life::Forever,
                "not-found" => script.life = Life::NotFound,
                "deaf" => script.deaf = true,
                "exit" => {
                    script.life = Life::Exit {
                        code: number()? as i32,
                        after: Duration::ZERO,
                    }
                }
                "oom" => {
                    script.life = Life::Oom {
                        after: Duration::ZERO,
                    }
                }
                "after-ms" => ends_after = Duration::from_millis(number()?),
                "stops-in-ms" => script.stops_in = Duration::from_millis(number()?),
                "listen" => script.listens = Some(number()? as u16),
                "well-at-ms" => script.well_at = Duration::from_millis(number()?),
                "sick-at-ms" => script.sick_at = Some(Duration::from_millis(number()?)),
                unknown => return Err(format!("no such word in a script: {unknown}")),
            }
        }
        match &mut script.life {
            Life::Exit { after, .. } | Life::Oom { after } => *after = ends_after,
            Life::Forever | Life::NotFound => {}
        }
        Ok(script)
    }

    /// Whether a probe finds the container well, this long after its start.
    pub fn is_well(&self, age: Duration) -> bool {
        age >= self.well_at && self.sick_at.is_none_or(|sick_at| age < sick_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_command_says_what_the_container_does() {
        let script = Script::parse(&words("exit 3 after-ms 250 deaf listen 80")).unwrap();
        let after = Duration::from_millis(250);
        assert_eq!(script.life, Life::Exit { code: 3, after });
        assert!(script.deaf);
        assert_eq!(script.listens, Some(80));
        assert!(Script::parse(&words("dance")).is_err());
        assert!(Script::parse(&words("exit soon")).is_err());
    }

    #[test]
    fn health_has_a_beginning_and_an_end() {
        let script = Script::parse(&words("forever well-at-ms 1000 sick-at-ms 5000")).unwrap();
        let well: Vec<bool> = [0, 1, 4, 5, 9]
            .map(|seconds| script.is_well(Duration::from_secs(seconds)))
            .into();
        assert_eq!(well, [false, true, true, false, false]);
    }
}
