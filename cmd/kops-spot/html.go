package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/pflag"
)

// htmlFile is the file of --html. It is written at once, when the page is complete.
type htmlFile struct {
	path string
	made bool // by prepare
}

func (h *htmlFile) register(f *pflag.FlagSet) {
	f.StringVar(&h.path, "html", "", "Also write the report with charts to this `file`, as a page for a browser")
}

// prepare finds out whether the file can be written, before requests that take time or that AWS bills. It keeps the
// content of an existing file.
func (h *htmlFile) prepare() error {
	if h.path == "" {
		return nil
	}
	f, err := os.OpenFile(h.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	h.made = err == nil
	if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(h.path, os.O_WRONLY, 0)
	}
	if err != nil {
		return fmt.Errorf("opening the file for the report: %w: choose another --html", err)
	}
	return f.Close()
}

// write writes the page, if there is a file for it.
func (h *htmlFile) write(page func(io.Writer) error) error {
	if h.path == "" {
		return nil
	}
	var text bytes.Buffer
	err := page(&text)
	if err == nil {
		err = os.WriteFile(h.path, text.Bytes(), 0o644)
	}
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	h.made = false
	return nil
}

// discard removes the file if prepare created it and write did not succeed.
func (h *htmlFile) discard() {
	if h.made {
		os.Remove(h.path)
	}
}
