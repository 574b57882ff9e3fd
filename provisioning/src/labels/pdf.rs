//! All labels as pages of a PDF, for sheets of labels.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::{Content, Filter, Finish as _, Name, Pdf, Rect, Ref, Str};

use super::layout::{LayoutError, Mark, layout};
use super::{Label, Sheet};

/// PDF's unit is a 72nd of an inch.
const POINTS: f32 = 72.0 / 25.4;
/// A font that every reader brings.
const FONT: &[u8] = b"Courier-Bold";
/// More pages than that are several files.
pub const PAGES_MAX: usize = 10_000;

/// The labels, in their order, on as many pages as they need; the first page begins at label `skip`, so that a
/// sheet which was begun can be used up.
pub fn write(labels: &[Label], sheet: &Sheet, skip: usize) -> Result<Vec<u8>, LayoutError> {
    let skip = skip % sheet.labels_on_page();
    let places = skip..skip + labels.len();
    let pages = places.end.div_ceil(sheet.labels_on_page()).clamp(1, PAGES_MAX);
    let (catalog, tree, font) = (Ref::new(1), Ref::new(2), Ref::new(3));
    let page_ref = |page: usize| Ref::new(4 + 2 * i32::try_from(page).unwrap_or(0));
    let content_ref = |page: usize| Ref::new(5 + 2 * i32::try_from(page).unwrap_or(0));
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids((0..pages).map(page_ref)).count(i32::try_from(pages).unwrap_or(i32::MAX));
    pdf.type1_font(font).base_font(Name(FONT));
    let mut placed = labels.iter().zip(places).peekable();
    for page in 0..pages {
        let mut content = Content::new();
        while let Some((label, place)) = placed.next_if(|(_, place)| place / sheet.labels_on_page() == page) {
            draw(&mut content, label, sheet, sheet.corner(place % sheet.labels_on_page()))?;
        }
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
        // Writing to memory does not fail.
        let packed = packed.write_all(&content.finish()).and_then(|()| packed.finish()).unwrap_or_default();
        pdf.stream(content_ref(page), &packed).filter(Filter::FlateDecode);
        let mut written = pdf.page(page_ref(page));
        written.media_box(Rect::new(0.0, 0.0, sheet.page.0 * POINTS, sheet.page.1 * POINTS));
        written.parent(tree).contents(content_ref(page));
        written.resources().fonts().pair(Name(b"F"), font);
        written.finish();
    }
    Ok(pdf.finish())
}

/// PDF counts from the lower corner.
fn draw(content: &mut Content, label: &Label, sheet: &Sheet, corner: (f32, f32)) -> Result<(), LayoutError> {
    let across = |x: f32| (corner.0 + x) * POINTS;
    let up = |y: f32| (sheet.page.1 - corner.1 - y) * POINTS;
    let marks = layout(label, sheet.label)?;
    for mark in &marks {
        if let Mark::Dark { x, y, width, height } = mark {
            content.rect(across(*x), up(y + height), width * POINTS, height * POINTS);
        }
    }
    content.fill_nonzero();
    content.begin_text();
    for mark in &marks {
        if let Mark::Text { x, y, size, text } = mark {
            content.set_font(Name(b"F"), size * POINTS);
            content.set_text_matrix([1.0, 0.0, 0.0, 1.0, across(*x), up(*y)]);
            content.show(Str(text.as_bytes()));
        }
    }
    content.end_text();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sheet::SHEETS;
    use super::*;

    fn labels(count: usize) -> Vec<Label> {
        let name = |number: usize| format!("edge-{number:04}").parse().expect("a name");
        let plane = "https://plane.example.org:8443/";
        (1..=count).map(|number| Label::of(name(number), plane, &Default::default())).collect()
    }

    fn pages(pdf: &[u8]) -> usize {
        String::from_utf8_lossy(pdf).matches("/Type /Page\n").count()
    }

    #[test]
    fn a_thousand_labels_take_as_many_pages_as_they_need() {
        for (name, sheet) in SHEETS {
            let pdf = write(&labels(1000), &sheet, 0).expect("fits");
            assert_eq!(pages(&pdf), 1000_usize.div_ceil(sheet.labels_on_page()), "{name}");
            assert!(pdf == write(&labels(1000), &sheet, 0).expect("fits"), "same labels, same bytes");
        }
        let sheet = SHEETS[0].1;
        assert_eq!(pages(&write(&labels(3), &sheet, 22).expect("fits")), 2);
        assert_eq!(pages(&write(&[], &sheet, 0).expect("fits")), 1);
    }
}
