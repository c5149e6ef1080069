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

// simulated is EC2 and Auto Scaling for the scripts. Each script has its own nodes and namespaces.
var simulated = testenv.Once(func(context.Context) (e struct {
	*spottest.AWS
	*fakeaws.Server
}, err error) {
	e.AWS = spottest.NewAWS(region)
	e.Server, err = fakeaws.Start(e.AWS, 0)
	return e, err
}, nil)

// discovery runs before the cluster has kOps' annotation.
func discovery(t *testing.T) { runScripts(t, "testdata/discovery") }

func scripts(t *testing.T) {
	try(annotate(t.Context(), "s3://state-store/kops/"+cluster+"/addons/bootstrap-channel.yaml"))
	t.Cleanup(func() { try(annotate(context.Background(), "")) }) // after the parallel scripts
	runScripts(t, "testdata/scripts")
}

// runScripts runs the scripts of a directory. With UPDATE_TRANSCRIPTS set, it updates them: review the diff.
func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{Dir: dir, Setup: setup, Cmds: commands, RequireUniqueNames: true,
		UpdateScripts: os.Getenv("UPDATE_TRANSCRIPTS") != ""})
}

// setup prepares a shell with access to the cluster but not to AWS.
func setup(env *testscript.Env) error {
	env.Setenv("PATH", programs()+string(os.PathListSeparator)+os.Getenv("PATH"))
	env.Setenv("AWS_EC2_METADATA_DISABLED", "true") // the last source of credentials takes a second to fail
	env.Setenv("KUBECONFIG", cp().Kubeconfig())
	env.Setenv("NAMED_KUBECONFIG", filepath.Join(env.WorkDir, "named.kubeconfig"))
	return nameKubeconfig(env.Getenv("NAMED_KUBECONFIG"))
}

// nameKubeconfig writes a kubeconfig that names cluster and context after the kOps cluster, as kops does.
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

// awsEnv returns the environment with AWS credentials.
func awsEnv() map[string]string {
	env := map[string]string{}
	for _, kv := range simulated().Env() {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	return env
}
