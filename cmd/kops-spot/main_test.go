package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kops-spot": main})
}

// TestTranscripts runs those that need no cluster; those that do are in test/operator. With UPDATE_TRANSCRIPTS set, what is
// seen becomes what is wanted: look at the difference before you believe it.
func TestTranscripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true,
		UpdateScripts: os.Getenv("UPDATE_TRANSCRIPTS") != ""})
}
