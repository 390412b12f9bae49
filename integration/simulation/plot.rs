//! The plot: what nodes and services cost, each figure on axes of its own.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use plotters::prelude::*;

use crate::TIMES_OF_ONE;
use crate::figures::{Costs, Round};
use crate::harness::Must as _;
use crate::services::Services;

/// Pixels of the whole.
const SIZE: (u32, u32) = (1080, 900);
/// Columns and rows of figures.
const GRID: (usize, usize) = (3, 2);
/// Told apart also by those who see few colours, on the white that is drawn below them whatever the page has.
const COLOURS: [RGBColor; 3] = [RGBColor(0, 90, 181), RGBColor(220, 50, 32), RGBColor(90, 90, 90)];

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Outcome = Result<(), Box<dyn Error>>;

/// One figure: some lines over the number of nodes or services. Both axes are logarithmic.
struct Figure {
    title: &'static str,
    across: &'static str,
    up: &'static str,
    lines: Vec<(&'static str, Vec<(f64, f64)>)>,
}

/// Draws the plot into a file.
pub(crate) fn draw(costs: &Costs, file: &Path) {
    drawn(costs, file).must(format_args!("drawing {}", file.display()));
}

fn drawn(costs: &Costs, file: &Path) -> Outcome {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    for (figure, place) in figures(costs).iter().zip(area.split_evenly((GRID.1, GRID.0))) {
        figure.draw(&place)?;
    }
    area.present()?;
    Ok(())
}

fn figures(Costs { nodes, services, .. }: &Costs) -> Vec<Figure> {
    let by_nodes = |of: &dyn Fn(&Round) -> f64| nodes.iter().map(|round| (round.nodes as f64, of(round))).collect::<Vec<_>>();
    let by_services = |of: &dyn Fn(&Services) -> f64| services.iter().map(|one| (one.services as f64, of(one))).collect::<Vec<_>>();
    let limit = (TIMES_OF_ONE * nodes[0].requests) as f64;
    let figure = |title, across, up, lines| Figure { title, across, up, lines };
    vec![
        figure(
            "Requests at the notary server",
            "nodes",
            "requests",
            vec![("requests", by_nodes(&|round| round.requests as f64)), ("3 times one node", by_nodes(&|_| limit))],
        ),
        figure(
            "Resolution, first image on all nodes",
            "nodes",
            "milliseconds",
            vec![("p99", by_nodes(&|round| millis(round.percentile(99)))), ("p50", by_nodes(&|round| millis(round.percentile(50))))],
        ),
        figure(
            "Calls at etcd",
            "nodes",
            "calls",
            vec![("questions", by_nodes(&|round| round.etcd.ranges)), ("writes", by_nodes(&|round| round.etcd.transactions))],
        ),
        figure(
            "Resolution on one node",
            "services",
            "milliseconds",
            vec![
                ("first of a revision", by_services(&|one| millis(one.first))),
                ("held by the node", by_services(&|one| millis(one.held))),
            ],
        ),
        figure("Memory of a node's process", "services", "MiB", vec![("resident", by_services(&|one| one.resident_mib))]),
        figure("Start until all pins are held", "services", "milliseconds", vec![("start", by_services(&|one| millis(one.load)))]),
    ]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Figure {
    fn draw(&self, area: &Area<'_>) -> Outcome {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let (least_x, most_x) = ends(points().map(|(x, _)| *x));
        let (least_y, most_y) = ends(points().map(|(_, y)| *y));
        let text = ("sans-serif", 15).into_font().color(&BLACK);
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 17).into_font().color(&BLACK))
            .margin(12)
            .margin_right(30)
            .x_label_area_size(42)
            .y_label_area_size(62)
            .build_cartesian_2d((least_x..most_x).log_scale(), (least_y / 2.0..most_y * 3.0).log_scale())?;
        chart
            .configure_mesh()
            .x_desc(format!("{} (log scale)", self.across))
            .y_desc(format!("{} (log scale)", self.up))
            .label_style(text.clone())
            .axis_desc_style(text.clone())
            .x_label_formatter(&|x| plain(*x))
            .y_label_formatter(&|y| plain(*y))
            .y_labels(6)
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(215, 215, 215))
            .draw()?;
        for ((name, points), colour) in self.lines.iter().zip(COLOURS) {
            let line = chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
            line.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(RGBColor(215, 215, 215))
            .label_font(text)
            .draw()?;
        Ok(())
    }
}

/// Above zero, since there is no logarithm of it, and not one point.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values.fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), value| (least.min(value), most.max(value)));
    (least.max(1e-4), most.max(least * 1.01))
}

/// Without an exponent.
fn plain(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("{value:.3}").trim_end_matches('0').to_owned() }
}
