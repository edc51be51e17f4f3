//! Rows for spreadsheets, as RFC 4180 has them.

/// The text of a table: the header, then the rows.
pub fn text(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = header.join(",");
    text.push_str("\r\n");
    for row in rows {
        let fields: Vec<String> = row.iter().map(|f| field(f)).collect();
        text.push_str(&fields.join(","));
        text.push_str("\r\n");
    }
    text
}

fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_would_be_read_otherwise_is_quoted() {
        let rows = [vec!["a,b".to_owned(), "say \"hi\"\nnow".to_owned(), "plain".to_owned()]];
        let expected = "x,y,z\r\n\"a,b\",\"say \"\"hi\"\"\nnow\",plain\r\n";
        assert_eq!(super::text(&["x", "y", "z"], rows), expected);
    }
}
