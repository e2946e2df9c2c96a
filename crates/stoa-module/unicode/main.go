// Command unicode writes the Unicode tables of stoa-module from those of the Go that builds it.
//
// Run it in crates/stoa-module:
//
//	(cd unicode && go run .) > src/unicode_tables.rs
//
// With the argument "each" it writes instead one line for each rune that is a letter or that folds to another rune:
// the rune, 1 or 0 for being a letter, and what it folds to. A test compares these lines with the tables as they are
// looked up.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"unicode"
)

// fold returns the least rune that differs from r in case only, but a-z for A-Z.
func fold(r rune) rune {
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}

// A run is a range of runes that are stride apart and all fold to what is delta away.
type run struct {
	first, last, stride, delta rune
}

// foldRuns covers every rune that folds to another one. The stride of every run is 1 or 2.
func foldRuns() []run {
	var runs []run
	for r := rune(0); r <= unicode.MaxRune; r++ {
		delta := fold(r) - r
		if delta == 0 {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1].delta == delta {
			last := &runs[n-1]
			step := r - last.last
			if step == last.stride || last.first == last.last && step <= 2 {
				last.last, last.stride = r, step
				continue
			}
		}
		runs = append(runs, run{r, r, 1, delta})
	}
	return runs
}

// letterBounds returns the runes at which being a letter begins or ends.
func letterBounds() []string {
	var bounds []string
	inside := false
	for r := rune(0); r <= unicode.MaxRune+1; r++ {
		if letter := r <= unicode.MaxRune && unicode.IsLetter(r); letter != inside {
			bounds = append(bounds, fmt.Sprintf("%#x", r))
			inside = letter
		}
	}
	return bounds
}

// filled lays short items out as rustfmt does: as many on a line of 100 columns as fit with a space behind them.
func filled(items []string) string {
	var text, line strings.Builder
	for _, item := range items {
		if line.Len() > 0 && 4+line.Len()+len(item)+len(" , ") > 100 {
			fmt.Fprintf(&text, "    %s\n", line.String())
			line.Reset()
		}
		if line.Len() > 0 {
			line.WriteString(" ")
		}
		line.WriteString(item + ",")
	}
	fmt.Fprintf(&text, "    %s\n", line.String())
	return text.String()
}

func main() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()

	if len(os.Args) == 2 && os.Args[1] == "each" {
		for r := rune(0); r <= unicode.MaxRune; r++ {
			letter := 0
			if unicode.IsLetter(r) {
				letter = 1
			}
			if folded := fold(r); letter == 1 || folded != r {
				fmt.Fprintf(out, "%x %d %x\n", r, letter, folded)
			}
		}
		return
	}

	bounds := letterBounds()
	runs := foldRuns()
	fmt.Fprintf(out, "//! Made from Go's tables by `unicode/main.go`, which says how. Do not edit.\n\n")
	fmt.Fprintf(out, "/// The version of Unicode.\n")
	fmt.Fprintf(out, "#[cfg(test)]\npub(crate) const UNICODE_VERSION: &str = %q;\n\n", unicode.Version)
	fmt.Fprintf(out, "/// Where the letters (categories L*) begin and end, by turns.\n")
	fmt.Fprintf(out, "pub(crate) const LETTERS: [u32; %d] = [\n%s];\n\n", len(bounds), filled(bounds))
	fmt.Fprintf(out, "/// First and last character of a run, the step within it, and the distance to what they fold to.\n")
	fmt.Fprintf(out, "pub(crate) const FOLDS: [(u32, u32, u32, i32); %d] = [\n", len(runs))
	for _, r := range runs {
		fmt.Fprintf(out, "    (%#x, %#x, %d, %d),\n", r.first, r.last, r.stride, r.delta)
	}
	fmt.Fprintf(out, "];\n")
}
