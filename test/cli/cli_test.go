// Package cli runs transcripts of the command line: the real binary, a real API server, and EC2 and Auto Scaling as far
// as the binary asks them.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/test/awsfake"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	cluster = "prod.example.com"
	region  = "us-east-1"
)

// shared is what all transcripts run on; each has its own nodes and namespaces.
var shared struct {
	cp   *testenv.ControlPlane
	kube *kube.Cluster // as the function sees it
	aws  *sim.AWS
	fake *awsfake.Server
	bin  string
}

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cli:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	ctx := context.Background()
	bootstrap, err := testenv.BuildBootstrap(ctx) // and with it the command line
	if err != nil {
		return 1, err
	}
	shared.bin = filepath.Dir(bootstrap)
	if shared.cp, err = testenv.StartControlPlane(ctx, testenv.Options{Log: os.Stderr}); err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := shared.cp.Stop(); stopErr != nil {
			code, err = 1, errors.Join(err, stopErr)
		}
	}()
	login, _, err := kube.Kubeconfig{File: shared.cp.Kubeconfig()}.LogIn("kops-spot/test")
	if err != nil {
		return 1, err
	}
	if shared.kube, err = kube.New(login); err != nil {
		return 1, err
	}
	shared.aws = sim.NewAWS(region)
	if shared.fake, err = awsfake.Start(shared.aws, 0); err != nil {
		return 1, err
	}
	defer shared.fake.Close()
	return m.Run(), nil
}

// TestDiscovery begins in a cluster that does not say yet that it is kOps'. So it runs before the others, alone.
func TestDiscovery(t *testing.T) { transcripts(t, "testdata/discovery") }

func TestTranscripts(t *testing.T) {
	if err := annotate(t.Context(), "s3://state-store/kops/"+cluster+"/addons/bootstrap-channel.yaml"); err != nil {
		t.Fatal(err)
	}
	transcripts(t, "testdata/scripts")
}

// transcripts runs all of a directory. With UPDATE_TRANSCRIPTS set, what is seen becomes what is wanted: look at the
// difference before you believe it.
func transcripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{Dir: dir, Setup: setup, Cmds: commands, RequireUniqueNames: true,
		UpdateScripts: os.Getenv("UPDATE_TRANSCRIPTS") != ""})
}

// setup is an operator's shell, logged in to the cluster and not to AWS.
func setup(env *testscript.Env) error {
	env.Setenv("PATH", shared.bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	env.Setenv("AWS_EC2_METADATA_DISABLED", "true") // the last place to look for credentials takes a second to say no
	env.Setenv("KUBECONFIG", shared.cp.Kubeconfig())
	env.Setenv("NAMED_KUBECONFIG", filepath.Join(env.WorkDir, "named.kubeconfig"))
	return nameKubeconfig(env.Getenv("NAMED_KUBECONFIG"))
}

// nameKubeconfig writes a kubeconfig in which the cluster and the context have the cluster's name, as kops writes it.
func nameKubeconfig(path string) error {
	cfg, err := clientcmd.LoadFromFile(shared.cp.Kubeconfig())
	if err != nil {
		return err
	}
	context := cfg.Contexts[cfg.CurrentContext]
	cfg.Clusters[cluster] = cfg.Clusters[context.Cluster]
	context.Cluster = cluster
	cfg.Contexts = map[string]*clientcmdapi.Context{cluster: context}
	cfg.CurrentContext = cluster
	return clientcmd.WriteToFile(*cfg, path)
}

// awsEnv is the environment of somebody who is logged in to AWS.
func awsEnv() map[string]string {
	env := map[string]string{}
	for _, kv := range shared.fake.Env() {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	return env
}
