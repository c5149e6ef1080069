package main

import (
	"os"
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
