//! What is asked for, and of which kind of document that makes the faulty source's answer.

/// The version of `ex.com/lib` that everything is about.
pub const VERSION: &str = "v1.0.0";

/// A request of a client, and the document behind it at which the fault happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    List,
    Latest,
    Info,
    Mod,
    Zip,
    /// A `.mod`, whose record is looked up.
    LookupOfMod,
    /// A `.zip`, whose record is proven by tiles.
    TileOfZip,
    /// A `.mod`, whose source is asked whether it passes the database on.
    SupportedOfMod,
    /// The client's own lookup, tile, and lookup again.
    Lookup,
    Tile,
    Supported,
}

/// What a source sends, as the rules know it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Document {
    List,
    Latest,
    Info,
    Mod,
    Zip,
    Lookup,
    Tile,
    Supported,
}

impl Target {
    pub const ALL: [Self; 11] = [
        Self::List,
        Self::Latest,
        Self::Info,
        Self::Mod,
        Self::Zip,
        Self::LookupOfMod,
        Self::TileOfZip,
        Self::SupportedOfMod,
        Self::Lookup,
        Self::Tile,
        Self::Supported,
    ];

    pub fn document(self) -> Document {
        match self {
            Self::List => Document::List,
            Self::Latest => Document::Latest,
            Self::Info => Document::Info,
            Self::Mod => Document::Mod,
            Self::Zip => Document::Zip,
            Self::LookupOfMod | Self::Lookup => Document::Lookup,
            Self::TileOfZip | Self::Tile => Document::Tile,
            Self::SupportedOfMod | Self::Supported => Document::Supported,
        }
    }

    /// The path that the client asks for; `database` is the name of the checksum database.
    pub fn path(self, database: &str) -> String {
        match self {
            Self::List => "ex.com/lib/@v/list".to_owned(),
            Self::Latest => "ex.com/lib/@latest".to_owned(),
            Self::Info => format!("ex.com/lib/@v/{VERSION}.info"),
            Self::Mod | Self::LookupOfMod | Self::SupportedOfMod => {
                format!("ex.com/lib/@v/{VERSION}.mod")
            }
            Self::Zip | Self::TileOfZip => format!("ex.com/lib/@v/{VERSION}.zip"),
            Self::Lookup | Self::Supported => {
                format!("sumdb/{database}/lookup/ex.com/lib@{VERSION}")
            }
            Self::Tile => format!("sumdb/{database}/tile/8/0/000"),
        }
    }

    /// The requests at a source that ask for the document.
    pub fn pattern(self) -> &'static str {
        match self.document() {
            Document::List => "/ex.com/lib/@v/list",
            Document::Latest => "/ex.com/lib/@latest",
            Document::Info => "/ex.com/lib/@v/v1.0.0.info",
            Document::Mod => "/ex.com/lib/@v/v1.0.0.mod",
            Document::Zip => "/ex.com/lib/@v/v1.0.0.zip",
            Document::Lookup => "*/lookup/ex.com/lib@v1.0.0",
            Document::Tile => "*/tile/*",
            Document::Supported => "*/supported",
        }
    }

    /// The requests at a source that ask for the client's file itself.
    pub fn own_pattern(self) -> &'static str {
        match self {
            Self::LookupOfMod | Self::SupportedOfMod => Self::Mod.pattern(),
            Self::TileOfZip => Self::Zip.pattern(),
            Self::Supported => Self::Lookup.pattern(),
            _ => self.pattern(),
        }
    }

    /// Only the checksum database is at fault, and what the client asks for is a module's file.
    pub fn is_behind_a_file(self) -> bool {
        matches!(self, Self::LookupOfMod | Self::TileOfZip | Self::SupportedOfMod)
    }

    /// The client speaks to the checksum database.
    pub fn is_of_database(self) -> bool {
        matches!(self, Self::Lookup | Self::Tile | Self::Supported)
    }
}
