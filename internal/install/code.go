package install

import (
	"archive/zip"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
)

// machines are the processors by Lambda's names.
var machines = map[string]elf.Machine{"arm64": elf.EM_AARCH64, "x86_64": elf.EM_X86_64}

// CheckCode refuses a zip that Lambda would take and could not run.
func CheckCode(code []byte, architecture string) error {
	r, err := zip.NewReader(bytes.NewReader(code), int64(len(code)))
	if err != nil {
		return fmt.Errorf("the code is no zip: %w", err)
	}
	f, err := r.Open("bootstrap")
	if err != nil {
		return errors.New("the code has no file bootstrap at its top: make dist builds one")
	}
	defer f.Close()
	content, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("reading the code: %w", err)
	}
	program, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("the code's bootstrap is no program for Linux: %w", err)
	}
	if want, ok := machines[architecture]; ok && program.Machine != want {
		return fmt.Errorf("the code is built for another processor than Architecture=%s says: --set Architecture sets it", architecture)
	}
	return nil
}
