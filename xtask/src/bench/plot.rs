//! A picture of a group: for each case how many times as good as the Linux bridge everyone was, on a logarithmic scale.

use std::fmt::{self, Write as _};

use super::figure::Figure;
use super::report::Case;
use super::systems::Kind;

const LABELS: f64 = 300.0;
const WIDTH: f64 = 900.0;
const BAR: f64 = 14.0;
/// The scale's ends: a fiftieth and ten times as good.
const LEAST: f64 = 0.02;
const MOST: f64 = 10.0;

/// Draws cases below each other, as SVG.
pub fn draw(cases: &[&Case]) -> Result<String, fmt::Error> {
    let mut body = String::new();
    let mut y = 30.0;
    for case in cases {
        let Some(figure) = case.figures().first().copied() else { continue };
        let title = format!("{}: {} ({})", escape(&case.what), figure.label(), figure.unit());
        writeln!(body, r#"<text x="8" y="{:.0}" class="case">{title}</text>"#, y + BAR)?;
        y += BAR + 8.0;
        for entry in &case.entries {
            bar(&mut body, case, entry.system, figure, y)?;
            y += BAR + 3.0;
        }
        y += 10.0;
    }
    let mut scale = String::new();
    for mark in [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0] {
        let (x, class) = (place(mark), if (mark - 1.0_f64).abs() < 1e-9 { "one" } else { "mark" });
        writeln!(scale, r#"<line x1="{x:.1}" y1="22" x2="{x:.1}" y2="{y:.0}" class="{class}"/>"#)?;
        writeln!(scale, r#"<text x="{x:.1}" y="16" text-anchor="middle">{mark}×</text>"#)?;
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<style>.case{{font-weight:bold}}.mark{{stroke:#ddd}}.one{{stroke:#888}}\
         .whisker{{stroke:#000;stroke-width:1.5}}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         {scale}{body}</svg>\n"
    ))
}

/// One system's bar, from 1 to how good it was, with its interval and its own figure.
fn bar(body: &mut String, case: &Case, system: Kind, figure: Figure, y: f64) -> fmt::Result {
    writeln!(
        body,
        r#"<text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"#,
        LABELS - 6.0,
        y + BAR - 3.0,
        escape(system.label())
    )?;
    let Some(ratio) = case.ratio_to_bridge(system, figure) else {
        let why = if case.entries.iter().any(|it| it.system == system && it.error.is_some()) {
            "not measured"
        } else {
            "no bridge beside it"
        };
        writeln!(body, r#"<text x="{:.0}" y="{:.1}">{why}</text>"#, place(1.0) + 6.0, y + BAR - 3.0)?;
        return Ok(());
    };
    let good = |ratio: f64| if figure.more_is_better() { ratio } else { 1.0 / ratio };
    let (from, to) = (place(1.0), place(good(ratio.median)));
    let color = if system.is_weft() { "#2a6fbb" } else { "#b9b9b9" };
    let (left, width) = (from.min(to), (from - to).abs().max(1.0));
    writeln!(
        body,
        r#"<rect x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{BAR}" fill="{color}"><title>{:.2} ({:.2}–{:.2})</title></rect>"#,
        ratio.median, ratio.low, ratio.high
    )?;
    let (low, high) = (place(good(ratio.low)), place(good(ratio.high)));
    let middle = y + BAR / 2.0;
    writeln!(body, r#"<line x1="{low:.1}" y1="{middle:.1}" x2="{high:.1}" y2="{middle:.1}" class="whisker"/>"#)?;
    let beside = [from, to, low, high].into_iter().fold(0.0, f64::max) + 6.0;
    writeln!(
        body,
        r#"<text x="{beside:.1}" y="{:.1}">{:.2}× · {}</text>"#,
        y + BAR - 3.0,
        good(ratio.median),
        three_digits(ratio.ours)
    )
}

/// Where a ratio is on the scale.
fn place(ratio: f64) -> f64 {
    let share = (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    LABELS + share * (WIDTH - LABELS - 110.0)
}

fn three_digits(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::report::Entry;
    use super::*;

    fn entry(system: Kind, figure: Figure, sample: f64) -> Entry {
        Entry { system, samples: vec![(figure, vec![sample; 3])], counts: None, error: None }
    }

    fn case(figure: Figure, ours: f64) -> Case {
        let entries = vec![entry(Kind::Bridge, figure, 10.0), entry(Kind::Weft, figure, ours)];
        let text = || "a <b>".to_owned();
        Case { group: text(), route: text(), name: text(), what: text(), entries }
    }

    #[test]
    fn twice_the_rate_and_half_the_cost_are_both_twice_as_good() {
        let (rate, cost) = (case(Figure::Rate, 20.0), case(Figure::WriteCost, 5.0));
        for case in [&rate, &cost] {
            let picture = draw(&[case]).unwrap();
            assert!(picture.contains("2.00×"), "{picture}");
            assert!(picture.contains("a &lt;b&gt;") && !picture.contains("a <b>"), "text is escaped");
        }
    }

    #[test]
    fn the_scale_is_logarithmic_and_has_ends() {
        let (half, one, two) = (place(0.5), place(1.0), place(2.0));
        assert!(((two - one) - (one - half)).abs() < 1e-9);
        assert!((place(1e-9) - place(LEAST)).abs() < 1e-9 && (place(1e9) - place(MOST)).abs() < 1e-9);
    }

    #[test]
    fn who_could_not_be_measured_is_named_all_the_same() {
        let mut case = case(Figure::Rate, 20.0);
        case.entries.push(Entry { system: Kind::Vde, samples: Vec::new(), counts: None, error: Some("why".into()) });
        assert!(draw(&[&case]).unwrap().contains("not measured"));
    }
}
