package main

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPack(t *testing.T) {
	long := strings.Repeat("the same line\n", 1000)
	dir := t.TempDir()
	archive, err := pack([]string{
		file(t, dir, "bootstrap", long, 0o755),
		file(t, dir, "LICENSE", "free", 0o644),
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		name, content string
		mode          os.FileMode
	}{
		{"LICENSE", "free", 0o644},
		{"bootstrap", long, 0o755},
	}
	if len(r.File) != len(want) {
		t.Fatalf("%d files; want %d", len(r.File), len(want))
	}
	for i, f := range r.File {
		content := read(t, f)
		if f.Name != want[i].name || content != want[i].content || f.Mode() != want[i].mode {
			t.Errorf("file %d is %s, %v, %d bytes; want %s, %v, %d bytes",
				i, f.Name, f.Mode(), len(content), want[i].name, want[i].mode, len(want[i].content))
		}
		if !f.Modified.Equal(epoch) {
			t.Errorf("%s is of %v; want %v", f.Name, f.Modified, epoch)
		}
	}
	if len(archive) > len(long)/2 {
		t.Errorf("%d bytes for %d: not compressed", len(archive), len(long))
	}
}

// TestSameBytes packs the same content as two builders have it: at other places, times and umasks, in another order.
func TestSameBytes(t *testing.T) {
	one, other := t.TempDir(), t.TempDir()
	first, err := pack([]string{
		file(t, one, "bootstrap", "program", 0o755),
		file(t, one, "LICENSE", "free", 0o644),
	})
	if err != nil {
		t.Fatal(err)
	}
	license := file(t, other, "LICENSE", "free", 0o600)
	if err := os.Chtimes(license, time.Time{}, time.Now().Add(-1000*time.Hour)); err != nil {
		t.Fatal(err)
	}
	second, err := pack([]string{license, file(t, other, "bootstrap", "program", 0o700)})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the same content gave two archives")
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	program := file(t, dir, "bootstrap", "program", 0o755)
	archive := filepath.Join(dir, "a.zip")

	var out strings.Builder
	if err := run([]string{archive, program}, &out); err != nil {
		t.Fatal(err)
	}
	if _, err := zip.OpenReader(archive); err != nil || !strings.Contains(out.String(), archive) {
		t.Errorf("%v, output %q", err, out.String())
	}

	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing to pack", []string{archive}, "usage"},
		{"no such file", []string{archive, filepath.Join(dir, "none")}, "none"},
		{"two files of one name", []string{archive, program, file(t, t.TempDir(), "bootstrap", "", 0o755)},
			"same name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := run(c.args, io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v; want one with %q", err, c.want)
			}
		})
	}
}

func file(t *testing.T, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // past this process's umask
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, f *zip.File) string {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
