package operator

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/castai/kops-spot/internal/spottest"
	fakeaws "github.com/castai/kops-spot/test/fakes/aws"
	"github.com/castai/kops-spot/test/testenv"
)

// simulated is EC2 and Auto Scaling as far as the scripts ask them; each has its own nodes and namespaces.
var simulated = testenv.Once(func(context.Context) (e struct {
	*spottest.AWS
	*fakeaws.Server
}, err error) {
	e.AWS = spottest.NewAWS(region)
	e.Server, err = fakeaws.Start(e.AWS, 0)
	return e, err
}, nil)

// discovery begins in a cluster that does not say yet that it is kOps'.
func discovery(t *testing.T) { runScripts(t, "testdata/discovery") }

func scripts(t *testing.T) {
	try(annotate(t.Context(), "s3://state-store/kops/"+cluster+"/addons/bootstrap-channel.yaml"))
	t.Cleanup(func() { try(annotate(context.Background(), "")) }) // once all of them have run
	runScripts(t, "testdata/scripts")
}

// runScripts runs all of a directory. With UPDATE_TRANSCRIPTS set, what is seen becomes what is wanted: look at the
// difference before you believe it.
func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{Dir: dir, Setup: setup, Cmds: commands, RequireUniqueNames: true,
		UpdateScripts: os.Getenv("UPDATE_TRANSCRIPTS") != ""})
}

// setup is an operator's shell, logged in to the cluster and not to AWS.
func setup(env *testscript.Env) error {
	env.Setenv("PATH", programs()+string(os.PathListSeparator)+os.Getenv("PATH"))
	env.Setenv("AWS_EC2_METADATA_DISABLED", "true") // the last place to look for credentials takes a second to say no
	env.Setenv("KUBECONFIG", cp().Kubeconfig())
	env.Setenv("NAMED_KUBECONFIG", filepath.Join(env.WorkDir, "named.kubeconfig"))
	return nameKubeconfig(env.Getenv("NAMED_KUBECONFIG"))
}

// nameKubeconfig writes a kubeconfig in which the cluster and the context have the cluster's name, as kops writes it.
func nameKubeconfig(path string) error {
	cfg, err := clientcmd.LoadFromFile(cp().Kubeconfig())
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
	for _, kv := range simulated().Env() {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	return env
}
