//! Plots of a report as SVG and PNG, one file per plot. Each draws finished numbers; colours are those of `palette`.

mod axes;
mod canvas;
pub(crate) mod palette;
mod pareto;
pub mod session;
mod stages;
mod telemetry;
mod tokens;
mod ttft_cumulative;
mod ttft_per_call;

use std::path::PathBuf;

use plotters::prelude::DrawingBackend;

use self::canvas::{Canvas, Drawn};
use crate::error::{ReportError, Result};
use crate::report::Report;
use crate::store::RunDir;

/// Logical width of every plot, pixels.
const WIDTH: u32 = 960;

/// A plot of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// Fidelity against cost, one line per way to choose and one panel per measure and reading of cost.
    Pareto,
    /// TTFT per call, one line per arm.
    TtftPerCall,
    /// TTFT added up over the calls, one line per arm.
    TtftCumulative,
    /// TTFT of one pass by stage, one bar per arm.
    Stages,
    /// Fate of the prompt tokens per call, one panel per arm.
    Tokens,
    /// Samples over time, one panel per quantity.
    Telemetry,
}

/// The plots that this run has data for, in the order of the page.
pub fn plots(report: &Report) -> Vec<Plot> {
    let cells = || report.calls.iter().flat_map(|row| row.cells.iter().flatten());
    let mut plots = Vec::new();
    if report.pareto.is_some() {
        plots.push(Plot::Pareto);
    }
    if cells().any(|cell| cell.ttft_ms.is_some()) {
        plots.extend([Plot::TtftPerCall, Plot::TtftCumulative]);
    }
    if report.stages.iter().any(|row| row.total_ms.is_some_and(|ms| ms > 0.0)) {
        plots.push(Plot::Stages);
    }
    if cells().any(|cell| cell.tokens_prefilled.is_some()) {
        plots.push(Plot::Tokens);
    }
    if telemetry::has_data(report) {
        plots.push(Plot::Telemetry);
    }
    plots
}

impl Plot {
    /// File name without extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::TtftPerCall => "ttft_per_call",
            Self::TtftCumulative => "ttft_cumulative",
            Self::Stages => "ttft_stages",
            Self::Tokens => "tokens_per_call",
            Self::Pareto => "fidelity_pareto",
            Self::Telemetry => "telemetry",
        }
    }

    /// How to read it, for the page around it.
    pub fn caption(self) -> &'static str {
        match self {
            Self::TtftPerCall => {
                "Time from the arrival of a request to the first generated token. Lower is better. A line that climbs with the \
                 calls pays for the whole history every time; a flat one pays for what is new. Thin bars span the repeats, \
                 crosses on the base line are failed calls."
            }
            Self::TtftCumulative => {
                "The same times added up from the first call on: what a user has waited in all. A line ends where a call has \
                 no time, because a sum with a hole would look better than it is."
            }
            Self::Stages => {
                "Where the time to first token goes, over one pass of all calls. Blue is the target at work, yellow the \
                 drafter scoring and choosing, red loading weights, green the cache; unexplained is what no stage claims. Below, \
                 the same as shares of each arm's own time."
            }
            Self::Tokens => {
                "What became of the prompt tokens of each call. Only the dark part costs target time; the rest was reused from \
                 the cache or removed by compression."
            }
            Self::Pareto => {
                "What a budget costs in fidelity and saves in time: arms that differ in the kept share alone are joined. Left is \
                 cheaper; lower KL and more agreeing calls are better. A hollow point is dominated: another arm is as good in \
                 both and better in one. Thin bars are 95 % intervals over sessions. Tokens count the same in target and drafter."
            }
            Self::Telemetry => {
                "Samples over the whole run; the tint behind the line is the arm whose call was in flight."
            }
        }
    }

    /// The plot as an SVG document of its own.
    ///
    /// # Errors
    /// [`ReportError::Plot`].
    pub fn svg(self, report: &Report) -> Result<String> {
        let drawn = self.size(report).and_then(|size| canvas::svg(size, |canvas| self.draw(report, canvas)));
        drawn.map_err(|detail| ReportError::Plot { plot: self.name(), detail })
    }

    /// Writes the plot to `plots/<name>.png`, two pixels per logical one, and returns the path.
    ///
    /// # Errors
    /// [`ReportError::Io`] with what the backend or the system met, [`ReportError::Plot`] without fonts.
    pub fn write_png(self, report: &Report, run: &RunDir) -> Result<PathBuf> {
        let name = format!("plots/{}.png", self.name());
        let size = self.size(report).map_err(|detail| ReportError::Plot { plot: self.name(), detail })?;
        run.replace(&name, |temporary| {
            canvas::png(size, temporary, |canvas| self.draw(report, canvas)).map_err(std::io::Error::other)
        })?;
        Ok(run.file(name))
    }

    fn size(self, report: &Report) -> Drawn<(u32, u32)> {
        let height = match self {
            Self::TtftPerCall | Self::TtftCumulative => 520.0,
            Self::Stages => stages::height(report)?,
            Self::Tokens => tokens::height(report),
            Self::Pareto => pareto::height(report)?,
            Self::Telemetry => telemetry::height(report)?,
        };
        Ok((WIDTH, height as u32))
    }

    fn draw<DB: DrawingBackend>(self, report: &Report, canvas: &Canvas<DB>) -> Drawn {
        match self {
            Self::TtftPerCall => ttft_per_call::draw(report, canvas),
            Self::TtftCumulative => ttft_cumulative::draw(report, canvas),
            Self::Stages => stages::draw(report, canvas),
            Self::Tokens => tokens::draw(report, canvas),
            Self::Pareto => pareto::draw(report, canvas),
            Self::Telemetry => telemetry::draw(report, canvas),
        }
    }
}
