//! Points, rectangles, and how large text is.

/// A place, in pixels; y grows downwards.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Downwards.
    pub y: f64,
}

impl Point {
    /// The point at these coordinates.
    pub fn new(x: f64, y: f64) -> Point {
        Point { x, y }
    }

    /// How far another point is.
    pub fn distance(self, other: Point) -> f64 {
        (self.x - other.x).hypot(self.y - other.y)
    }

    /// The point moved.
    pub fn moved(self, x: f64, y: f64) -> Point {
        Point::new(self.x + x, self.y + y)
    }
}

/// A rectangle.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rect {
    /// Its centre.
    pub centre: Point,
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
}

impl Rect {
    /// A rectangle around a point.
    pub fn around(centre: Point, width: f64, height: f64) -> Rect {
        Rect { centre, width, height }
    }

    /// Left edge.
    pub fn left(&self) -> f64 {
        self.centre.x - self.width / 2.0
    }

    /// Right edge.
    pub fn right(&self) -> f64 {
        self.centre.x + self.width / 2.0
    }

    /// Upper edge.
    pub fn top(&self) -> f64 {
        self.centre.y - self.height / 2.0
    }

    /// Lower edge.
    pub fn bottom(&self) -> f64 {
        self.centre.y + self.height / 2.0
    }

    /// Larger by so much on every side.
    pub fn grown(&self, by: f64) -> Rect {
        Rect { width: self.width + 2.0 * by, height: self.height + 2.0 * by, ..*self }
    }

    /// How far two rectangles reach into each other, to the side and downwards; none when they do not.
    pub fn overlap(&self, other: &Rect) -> Option<(f64, f64)> {
        let x = (self.width + other.width) / 2.0 - (self.centre.x - other.centre.x).abs();
        let y = (self.height + other.height) / 2.0 - (self.centre.y - other.centre.y).abs();
        (x > 1e-6 && y > 1e-6).then_some((x, y))
    }

    /// Where a straight way from the centre to a point leaves the rectangle.
    pub fn exit(&self, towards: Point) -> Point {
        let (dx, dy) = (towards.x - self.centre.x, towards.y - self.centre.y);
        if dx == 0.0 && dy == 0.0 {
            return self.centre;
        }
        let to_side = if dx == 0.0 { f64::INFINITY } else { self.width / 2.0 / dx.abs() };
        let to_end = if dy == 0.0 { f64::INFINITY } else { self.height / 2.0 / dy.abs() };
        let share = to_side.min(to_end);
        self.centre.moved(dx * share, dy * share)
    }
}

/// Width of a text in a sans-serif font of this size: rather too wide than too narrow, since the font that a viewer has is not known.
pub fn text_width(text: &str, size: f64) -> f64 {
    let width = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | '\'' | '|' => 0.36,
        'f' | 'r' | 't' | '-' | ' ' | '/' | '(' | ')' => 0.46,
        'm' | 'w' | 'M' | 'W' | '@' => 0.98,
        c if c.is_ascii_uppercase() => 0.76,
        c if c.is_ascii() => 0.64,
        _ => 1.05,
    };
    text.chars().map(width).sum::<f64>() * size
}
