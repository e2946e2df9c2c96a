// Command oracle answers questions with the code that the go command itself runs.
//
// It is built by the tests in a temporary module, together with golang.org/x/mod as it is vendored in GOROOT. It reads
// lines of JSON, each an array of strings whose first says what is asked, and writes a line of JSON for each.
package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"oracle/vcs"
)

type object = map[string]any

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func checkPath(p string) any {
	err := module.CheckPath(p)
	if err != nil {
		return object{"error": message(err)}
	}
	prefix, major, _ := module.SplitPathVersion(p)
	escaped, _ := module.EscapePath(p)
	return object{"error": "", "prefix": prefix, "major": major, "escaped": escaped}
}

func version(v string) any {
	answer := object{
		"canonical": module.CanonicalVersion(v),
		"plain":     semver.Canonical(v),
		"major":     semver.Major(v),
		"pre":       semver.Prerelease(v),
		"build":     semver.Build(v),
		"pseudo":    module.IsPseudoVersion(v),
	}
	if escaped, err := module.EscapeVersion(v); err == nil {
		answer["escaped"] = escaped
	}
	t, err1 := module.PseudoVersionTime(v)
	base, err2 := module.PseudoVersionBase(v)
	rev, err3 := module.PseudoVersionRev(v)
	if err1 == nil && err2 == nil && err3 == nil {
		answer["parts"] = []string{base, t.UTC().Format(time.RFC3339), rev}
	}
	return answer
}

func goMod(text string) any {
	answer := object{"line": modfile.ModulePath([]byte(text))}
	f, err := modfile.ParseLax("go.mod", []byte(text), nil)
	if err != nil {
		answer["error"] = message(err)
		return answer
	}
	require := [][2]string{}
	for _, r := range f.Require {
		require = append(require, [2]string{r.Mod.Path, r.Mod.Version})
	}
	retract := [][3]string{}
	for _, r := range f.Retract {
		retract = append(retract, [3]string{r.Low, r.High, r.Rationale})
	}
	answer["require"], answer["retract"] = require, retract
	if f.Module != nil {
		answer["module"], answer["deprecated"] = f.Module.Mod.Path, f.Module.Deprecated
	}
	if f.Go != nil {
		answer["go"] = f.Go.Version
	}
	return answer
}

// The types of cmd/go/internal/modfetch and its codehost.
type revInfo struct {
	Version string
	Time    time.Time
	Name    string  `json:"-"`
	Short   string  `json:"-"`
	Origin  *origin `json:",omitempty"`
}

type origin struct {
	VCS, URL, Subdir, Hash, TagPrefix, TagSum, Ref, RepoSum string
}

func info(body string) any {
	var info revInfo
	if err := json.Unmarshal([]byte(body), &info); err != nil {
		return object{"error": message(err)}
	}
	answer := object{"error": "", "version": info.Version, "time": ""}
	if !info.Time.IsZero() {
		answer["time"] = info.Time.UTC().Format(time.RFC3339Nano)
	}
	return answer
}

// checkZip does what the go command does with a zip: it checks it, hashes it, which reads all data, and unpacks it.
func checkZip(dir, encoded, p, v string) any {
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		panic(err)
	}
	file := filepath.Join(dir, "m.zip")
	if err := os.WriteFile(file, data, 0o666); err != nil {
		panic(err)
	}
	if _, err := modzip.CheckZip(module.Version{Path: p, Version: v}, file); err != nil {
		return object{"error": "check: " + message(err)}
	}
	h1, err := dirhash.HashZip(file, dirhash.Hash1)
	if err != nil {
		return object{"error": "hash: " + message(err)}
	}
	unpacked := filepath.Join(dir, "unpacked")
	defer os.RemoveAll(unpacked)
	if err := modzip.Unzip(unpacked, module.Version{Path: p, Version: v}, file); err != nil && !errors.Is(err, syscall.ENAMETOOLONG) {
		return object{"error": "unzip: " + message(err)}
	}
	z, err := zip.OpenReader(file)
	if err != nil {
		panic(err)
	}
	defer z.Close()
	return object{"error": "", "h1": h1, "entries": len(z.File)}
}

// file is a file of a module to be made.
type file struct {
	name string
	data []byte
}

func (f file) Path() string                 { return f.name }
func (f file) Lstat() (os.FileInfo, error)  { return fileInfo{f}, nil }
func (f file) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f.data)), nil }

type fileInfo struct{ f file }

func (i fileInfo) Name() string       { return path.Base(i.f.name) }
func (i fileInfo) Size() int64        { return int64(len(i.f.data)) }
func (i fileInfo) Mode() os.FileMode  { return 0o644 }
func (i fileInfo) ModTime() time.Time { return time.Time{} }
func (i fileInfo) IsDir() bool        { return false }
func (i fileInfo) Sys() any           { return nil }

// files are names and contents in turn.
func files(words []string) []modzip.File {
	var files []modzip.File
	for ; len(words) > 1; words = words[2:] {
		files = append(files, file{words[0], []byte(words[1])})
	}
	return files
}

func createZip(p, v string, words []string) any {
	var out bytes.Buffer
	if err := modzip.Create(&out, module.Version{Path: p, Version: v}, files(words)); err != nil {
		return object{"error": message(err)}
	}
	return object{"error": "", "zip": base64.StdEncoding.EncodeToString(out.Bytes())}
}

func hash1(words []string) any {
	var names []string
	data := map[string]string{}
	for ; len(words) > 1; words = words[2:] {
		names = append(names, words[0])
		data[words[0]] = words[1]
	}
	open := func(name string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data[name])), nil }
	h1, err := dirhash.Hash1(names, open)
	return object{"error": message(err), "h1": h1}
}

func pseudo(text string) any {
	t, err1 := module.PseudoVersionTime(text)
	base, err2 := module.PseudoVersionBase(text)
	rev, err3 := module.PseudoVersionRev(text)
	answer := object{"is": module.IsPseudoVersion(text)}
	if err1 == nil && err2 == nil && err3 == nil {
		answer["parts"] = []string{base, t.UTC().Format(time.RFC3339), rev}
	}
	return answer
}

// inflate reads raw deflate data to their end.
func inflate(encoded string) any {
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		panic(err)
	}
	hash := sha256.New()
	n, err := io.Copy(hash, flate.NewReader(bytes.NewReader(data)))
	return object{"error": message(err), "bytes": n, "sha256": fmt.Sprintf("%x", hash.Sum(nil))}
}

func answer(dir string, q []string) any {
	switch q[0] {
	case "path":
		return checkPath(q[1])
	case "unescape_path":
		p, err := module.UnescapePath(q[1])
		return object{"error": message(err), "text": p}
	case "unescape_version":
		v, err := module.UnescapeVersion(q[1])
		return object{"error": message(err), "text": v}
	case "module":
		return object{"error": message(module.Check(q[1], q[2]))}
	case "pseudo":
		return pseudo(q[1])
	case "make_pseudo":
		t, err := time.Parse(time.RFC3339, q[3])
		if err != nil {
			panic(err)
		}
		return object{"text": module.PseudoVersion(q[1], q[2], t, q[4])}
	case "hash1":
		return hash1(q[1:])
	case "create":
		return createZip(q[1], q[2], q[3:])
	case "file":
		return object{"error": message(module.CheckFilePath(q[1]))}
	case "version":
		return version(q[1])
	case "compare":
		return object{"order": semver.Compare(q[1], q[2])}
	case "major":
		return object{"error": message(module.CheckPathMajor(q[1], q[2]))}
	case "match":
		matched, err := path.Match(q[1], q[2])
		return object{"matched": matched, "error": message(err)}
	case "globs":
		return object{"matched": module.MatchPrefixPatterns(q[1], q[2])}
	case "gomod":
		return goMod(q[1])
	case "info":
		return info(q[1])
	case "goimport":
		return vcs.Parse(q[1])
	case "inflate":
		return inflate(q[1])
	case "zip":
		return checkZip(dir, q[1], q[2], q[3])
	}
	panic("unknown question " + q[0])
}

func main() {
	dir, err := os.MkdirTemp("", "oracle")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for {
		var question []string
		if in.Decode(&question) != nil {
			return
		}
		encoded, err := json.Marshal(answer(dir, question))
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(out, "%s\n", encoded)
	}
}
