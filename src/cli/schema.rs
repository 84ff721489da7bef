//! `remediator schema`: the JSON Schemas of the two kinds of files, for editors.

use clap::{Args, ValueEnum};

use crate::cli::{Exit, out};
use crate::config::schema;

#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Of which kind of file
    #[arg(value_enum)]
    pub of: Of,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Of {
    /// A playbook
    Playbook,
    /// remediator.yml
    Settings,
}

/// Prints the schema.
///
/// # Errors
/// stdout is gone.
pub fn schema(args: &SchemaArgs) -> anyhow::Result<Exit> {
    let schema = match args.of {
        Of::Playbook => schema::of_playbook(),
        Of::Settings => schema::of_settings(),
    };
    out::print(&schema::text(&schema))
}
