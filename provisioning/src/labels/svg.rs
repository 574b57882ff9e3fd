//! One label as SVG, in millimetres.

use std::fmt::Write as _;

use super::Label;
use super::layout::{LETTER_WIDTH, LayoutError, Mark, layout};

/// The label as a picture of this size.
pub fn write(label: &Label, size: (f32, f32)) -> Result<String, LayoutError> {
    let (width, height) = size;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}mm\" height=\"{height}mm\" viewBox=\"0 0 {width} {height}\">\n\
         <title>{}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <path fill=\"black\" d=\"",
        label.name
    );
    let marks = layout(label, size)?;
    let mut words = String::new();
    for mark in &marks {
        // Writing to a string does not fail.
        let _ = match mark {
            Mark::Dark { x, y, width, height } => write!(svg, "M{x:.3} {y:.3}h{width:.3}v{height:.3}h-{width:.3}z"),
            Mark::Text { x, y, size, text } => {
                // The same width whatever letters the reader has.
                let width = text.len() as f32 * size * LETTER_WIDTH;
                let text = escaped(text);
                writeln!(
                    words,
                    "<text x=\"{x:.3}\" y=\"{y:.3}\" font-size=\"{size:.3}\" textLength=\"{width:.3}\" \
                     lengthAdjust=\"spacingAndGlyphs\">{text}</text>"
                )
            }
        };
    }
    svg.push_str("\"/>\n<g font-family=\"Courier, monospace\" font-weight=\"bold\" xml:space=\"preserve\">\n");
    svg.push_str(&words);
    svg.push_str("</g>\n</svg>\n");
    Ok(svg)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_well_formed_whatever_stands_on_it() {
        let name: muster_shared::DeviceId = "edge-1".parse().expect("a name");
        let lines = vec!["a<b>&\"c\"".to_owned(), "\u{1b}[2J".to_owned()];
        let label = Label { url: "https://a/d/edge-1".to_owned(), name, lines };
        let svg = write(&label, (70.0, 37.0)).expect("fits");
        let document = roxmltree::Document::parse(&svg).expect("XML");
        let texts = document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text")));
        let texts: Vec<_> = texts.filter_map(|node| node.text()).collect();
        assert_eq!(texts, ["edge-1", "a<b>&\"c\"", "?[2J"]);
        assert_eq!(write(&label, (70.0, 37.0)), Ok(svg));
    }
}
