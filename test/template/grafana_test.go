package template

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestGrafana: deploy/grafana.json is the dashboard of the template, for Grafana's CloudWatch data source.
func TestGrafana(t *testing.T) {
	type object map[string]any
	cloudWatch := object{"type": "cloudwatch", "uid": "${datasource}"}
	variable := func(name, label, regex string, query object) object {
		query["region"], query["refId"] = "$region", name
		if name == "region" {
			query["region"] = "default"
		}
		return object{"name": name, "label": label, "type": "query", "datasource": cloudWatch, "query": query, "regex": regex, "refresh": 1, "sort": 1}
	}
	var panels []object
	x, y := 0, 0
	for _, w := range widgets(t) {
		p := w.Properties
		if x+w.Width > 24 {
			x, y = 0, y+6
		}
		panel := object{"id": len(panels) + 1, "title": p.Title, "type": "timeseries", "datasource": cloudWatch, "targets": []object{},
			"gridPos": object{"x": x, "y": y, "w": w.Width, "h": 6}}
		x += w.Width
		target := func(mode string, more object) {
			targets := panel["targets"].([]object)
			more["queryMode"], more["region"], more["id"], more["refId"] = mode, "$region", "", string(rune('A'+len(targets)))
			panel["targets"] = append(targets, more)
		}
		for _, m := range metricsIn(w) {
			target("Metrics", object{"metricQueryType": 0, "metricEditorMode": 0, "namespace": m.namespace, "metricName": m.name,
				"dimensions": object{m.dimension: m.value}, "matchExact": true, "statistic": m.stat,
				"period": strconv.Itoa(max(p.Period, 300))}) // seconds; CloudWatch's default
		}
		if w.Type == "log" {
			panel["type"] = "table"
			group, query, _ := strings.Cut(strings.TrimPrefix(p.Query, "SOURCE '"), "' | ")
			target("Logs", object{"expression": query, "logGroupNames": []string{group}, "statsGroups": []string{}})
		}
		panels = append(panels, panel)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	must(t, e.Encode(object{"title": "kops-spot", "uid": "kops-spot", "schemaVersion": 39, "editable": true,
		"time": object{"from": "now-7d", "to": "now"}, "annotations": object{"list": []object{}}, "panels": panels,
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Data source", "type": "datasource", "query": "cloudwatch", "refresh": 1},
			variable("region", "Region", "", object{"queryType": "regions"}),
			variable("cluster", "Cluster", "", object{"queryType": "dimensionValues", "namespace": "kops-spot", "metricName": "Ready",
				"dimensionKey": "Cluster", "dimensionFilters": object{}}),
			variable("short_name", "Log group", "/cast-kops-([^:]+)/", object{"queryType": "logGroups", "logGroupPrefix": "/aws/lambda/cast-kops-"}),
		}}}))
	want := strings.NewReplacer(cluster, "$cluster", "prod-example-com-7405b0253a21", "${short_name}").Replace(b.String())
	path := filepath.Join(Root(), "deploy", "grafana.json")
	if *update {
		must(t, os.WriteFile(path, []byte(want), 0o644))
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s differs from the dashboard in template.yaml (%v): run go test ./template -run %s -update in test/", path, err, t.Name())
	}
}
