package main

import (
	"os"
	"runtime/debug"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kops-spot": main})
}

// TestTranscripts runs the transcripts that need no cluster; test/operator has the others. With UPDATE_TRANSCRIPTS set,
// it updates them: review the diff.
func TestTranscripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true,
		UpdateScripts: os.Getenv("UPDATE_TRANSCRIPTS") != ""})
}

func TestModuleVersion(t *testing.T) {
	for of, want := range map[string]string{
		"v0.1.0": "0.1.0", "v0.1.1-0.20261201093000-0123456789ab+dirty": "0.1.1-0.20261201093000-0123456789ab+dirty",
		"(devel)": "dev", "": "dev",
	} {
		if got := moduleVersion(&debug.BuildInfo{Main: debug.Module{Version: of}}); got != want {
			t.Errorf("module version %q: got %q, want %q", of, got, want)
		}
	}
	if got := moduleVersion(nil); got != "dev" {
		t.Errorf("without build information: got %q", got)
	}
}
