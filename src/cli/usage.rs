//! A wrong command line, told in one line that names it and what would be legal.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::flags::FLAGS;

/// Turns clap's several lines into one, without a final newline.
pub fn one_line(error: &clap::Error, subcommand: Option<&str>) -> String {
    let wrong = strings(error, ContextKind::InvalidArg).join(", ");
    let value = strings(error, ContextKind::InvalidValue).join(", ");
    let text = match error.kind() {
        ErrorKind::UnknownArgument => {
            let near = strings(error, ContextKind::SuggestedArg);
            let near = match near.first() {
                Some(near) => format!(", did you mean {near}?"),
                None => String::new(),
            };
            format!(
                "unknown flag or argument {wrong}{near}{}",
                legal_flags(subcommand)
            )
        }
        ErrorKind::InvalidSubcommand => format!(
            "unknown command {}; legal are {}",
            strings(error, ContextKind::InvalidSubcommand).join(", "),
            super::tree::command_names().join(", "),
        ),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!(
                "a command is missing; legal are {}",
                super::tree::command_names().join(", "),
            )
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("{wrong}: a value is missing"),
        ErrorKind::InvalidValue => {
            let legal = strings(error, ContextKind::ValidValue).join(", ");
            format!("{wrong}: {value:?} is not one of {legal}")
        }
        ErrorKind::MissingRequiredArgument => format!("{wrong} is missing"),
        ErrorKind::ArgumentConflict => {
            let other = strings(error, ContextKind::PriorArg).join(", ");
            format!("{wrong} cannot be used with {other}")
        }
        _ => first_line(error),
    };
    let command = subcommand.map_or(String::new(), |name| format!(" {name}"));
    format!("lowtide{command}: {text}")
}

fn legal_flags(subcommand: Option<&str>) -> String {
    if subcommand != Some("run") {
        return String::new();
    }
    let names: Vec<String> = FLAGS
        .iter()
        .map(|flag| format!("--{}", flag.name))
        .collect();
    format!("; legal are --config, {}", names.join(", "))
}

fn strings(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
