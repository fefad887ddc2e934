//! Arguments of `doctor`.

use clap::Args;

use super::ReportFormat;
use super::probes::ProbeChoice;

/// Say what this machine's kernel can give, what is missing, and how to fix it
///
/// Attaches the probes as `trace` does and tells how each thing is observed. Exit code 1 when
/// nothing can be traced.
#[derive(Debug, Args)]
#[command(after_long_help = "\
JSON has these keys:
  portwatch        version
  facts            what the machine offers: name, state (ok, warning, problem,
                   unknown), value, fix
  serves           whether anything can be traced; if not, error says why
  tier             the kind of probes that serves
  plan             each thing to observe: observe, required, chosen (null when
                   nothing serves), refused (what was tried before: tier,
                   alternative, error in the kernel's words), loses, fix
  missing_members  members of structures that this kernel does not have")]
pub struct DoctorArgs {
    /// How to print the report
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Output"
    )]
    pub output: ReportFormat,

    /// Kind of probes to try; with one of them only that
    #[arg(
        long,
        value_name = "TIER",
        default_value = "auto",
        help_heading = "Run"
    )]
    pub probes: ProbeChoice,
}
