package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/spot"
)

func TestCASTAIMistakes(t *testing.T) {
	const bare, cluster = "c4st-k3y:of-ours", "KOPS_SPOT_CASTAI_CLUSTER=" + castaiCluster
	for name, c := range map[string]struct {
		env  []string
		want []string
	}{
		"no key":                    {[]string{cluster}, []string{"KOPS_SPOT_CASTAI_KEY: set it to the location of the API key"}},
		"no cluster":                {[]string{"KOPS_SPOT_CASTAI_KEY=ssm:/k"}, []string{"KOPS_SPOT_CASTAI_CLUSTER: set it to the ID of the cluster in CAST AI"}},
		"only a URL":                {[]string{"KOPS_SPOT_CASTAI_URL=https://x"}, []string{"KOPS_SPOT_CASTAI_URL: remove it, or also set KOPS_SPOT_CASTAI_CLUSTER and KOPS_SPOT_CASTAI_KEY"}},
		"the key itself":            {[]string{cluster, "KOPS_SPOT_CASTAI_KEY=" + bare}, []string{"KOPS_SPOT_CASTAI_KEY: not a location: store the API key"}},
		"a key without dots":        {[]string{cluster, "KOPS_SPOT_CASTAI_KEY=" + strings.ReplaceAll(bare, ":", "")}, []string{"if the value was the key itself"}},
		"a location without a name": {[]string{cluster, "KOPS_SPOT_CASTAI_KEY=secretsmanager:"}, []string{"KOPS_SPOT_CASTAI_KEY: add a name after secretsmanager:"}},
		"the key as ID":             {[]string{"KOPS_SPOT_CASTAI_CLUSTER=" + bare, "KOPS_SPOT_CASTAI_KEY=ssm:/k"}, []string{"KOPS_SPOT_CASTAI_CLUSTER: CAST AI's ID of the cluster is not a UUID"}},
		"the key as URL": {[]string{cluster, "KOPS_SPOT_CASTAI_KEY=ssm:/k", "KOPS_SPOT_CASTAI_URL=" + bare},
			[]string{"KOPS_SPOT_CASTAI_URL: the URL of CAST AI's API"}},
		"all of them": {[]string{"KOPS_SPOT_CASTAI_CLUSTER=prod", "KOPS_SPOT_CASTAI_KEY=" + bare, "KOPS_SPOT_CASTAI_URL=http://castai.example"},
			[]string{"KOPS_SPOT_CASTAI_CLUSTER: ", "KOPS_SPOT_CASTAI_KEY: ", "KOPS_SPOT_CASTAI_URL: the URL of CAST AI's API begins with http://"}},
		"the key in a wrong setting": {[]string{"KOPS_SPOT_CASTAI_KEYS=" + bare}, []string{"KOPS_SPOT_CASTAI_KEYS: unknown setting"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := ParseConfig(complete(c.env...))
			if err == nil {
				t.Fatalf("no error: %+v", cfg)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in:\n%v", want, err)
				}
			}
			if strings.Contains(err.Error(), "c4st") || strings.Contains(err.Error(), "of-ours") {
				t.Errorf("the key is repeated: %v", err)
			}
		})
	}
}

// TestAutoscaler notifies CAST AI at its URL with the key. Without settings, there is no autoscaler.
func TestAutoscaler(t *testing.T) {
	var request, key string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		request, key = r.URL.Path+" "+string(body)+" "+r.UserAgent(), r.Header.Get("X-API-Key")
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("very-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := ParseConfig(complete("KOPS_SPOT_CASTAI_CLUSTER="+castaiCluster, "KOPS_SPOT_CASTAI_KEY=file:"+path, "KOPS_SPOT_CASTAI_URL="+server.URL))
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.castai.client(nil, "kops-spot/1").Notify(t.Context(), spot.AutoscalerInterrupted, "", "aws:///z/i-1"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(request, castaiCluster) || !strings.Contains(request, `"interrupted"`) || !strings.Contains(request, "kops-spot/1") || key != "very-secret" {
		t.Errorf("CAST AI received %s", request)
	}
	if cfg, err = ParseConfig(complete()); err != nil || cfg.castai.client(nil, "") != nil {
		t.Errorf("an autoscaler without settings: %v", err)
	}
}
