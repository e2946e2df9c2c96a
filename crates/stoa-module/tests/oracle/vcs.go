// Package vcs is what the go command's own discovery.go, which is copied beside this file, needs of its package.
package vcs

import (
	"encoding/xml"
	"io"
	"strings"
)

type ModuleMode int

const PreferMod ModuleMode = 1

type metaImport struct {
	Prefix, VCS, RepoRoot, SubDir string
}

// Page is what there is in a page.
type Page struct {
	Entries []metaImport
	// Whole says that the reader came to the end of the head, and not only to what it does not understand.
	Whole bool
}

func Parse(body string) Page {
	entries, _ := parseMetaGoImports(strings.NewReader(body), PreferMod)
	return Page{entries, isWhole(body)}
}

func isWhole(body string) bool {
	d := xml.NewDecoder(strings.NewReader(body))
	d.CharsetReader = charsetReader
	d.Strict = false
	for {
		t, err := d.RawToken()
		if err != nil {
			return err == io.EOF
		}
		switch e := t.(type) {
		case xml.StartElement:
			if strings.EqualFold(e.Name.Local, "body") {
				return true
			}
		case xml.EndElement:
			if strings.EqualFold(e.Name.Local, "head") {
				return true
			}
		}
	}
}
