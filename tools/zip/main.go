// Command zip packs files into a reproducible archive: Lambda and CloudFormation compare hashes, as do users who verify
// that a release was built from this source.
package main

import (
	"archive/zip"
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "zip:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) < 2 {
		return errors.New("usage: zip ARCHIVE FILE [FILE ...]")
	}
	archive, err := pack(args[1:])
	if err != nil {
		return fmt.Errorf("packing %s: %w", args[0], err)
	}
	if err := os.WriteFile(args[0], archive, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%x  %s  %d bytes\n", sha256.Sum256(archive), args[0], len(archive))
	return err
}

// epoch is the earliest time in a zip. It replaces the files' times, which differ between builds.
var epoch = time.Date(1980, time.January, 1, 0, 0, 0, 0, time.UTC)

// pack returns an archive of the files under their base names, where Lambda looks for them. It does not depend on their
// order, times and modes, except for the executable bit.
func pack(files []string) ([]byte, error) {
	files = slices.SortedFunc(slices.Values(files), func(a, b string) int {
		return cmp.Compare(filepath.Base(a), filepath.Base(b))
	})
	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	for i, name := range files {
		if i > 0 && filepath.Base(name) == filepath.Base(files[i-1]) {
			return nil, fmt.Errorf("%s and %s would have the same name", files[i-1], name)
		}
		if err := add(w, name); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}

func add(w *zip.Writer, name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	header := &zip.FileHeader{Name: filepath.Base(name), Method: zip.Deflate, Modified: epoch}
	header.SetMode(0o644)
	if info.Mode()&0o100 != 0 {
		header.SetMode(0o755)
	}
	entry, err := w.CreateHeader(header)
	if err != nil {
		return err
	}
	_, err = entry.Write(content)
	return err
}
