package eventbridge_test

import (
	"reflect"
	"testing"
	"time"
)

// affected decodes the event and returns its instances.
func affected(t *testing.T, event []byte) (ids []string) {
	t.Helper()
	for _, in := range decode(t, event).Interruptions {
		ids = append(ids, in.Instance)
	}
	return ids
}

// TestHealthPages: pages never share instances. Within a page, duplicates (by ID or ARN), resolved entities and
// entities that are not instances are ignored.
func TestHealthPages(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"health-page-1-of-2":                 {instance, "i-0aaaaaaaaaaaaaaa1"},
		"health-page-2-of-2":                 {"i-0bbbbbbbbbbbbbbb1", "i-0bbbbbbbbbbbbbbb2"},
		"health-scheduled-change-arn-entity": {instance},
	} {
		if got := affected(t, sample(t, name)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	page := decode(t, sample(t, "health-page-1-of-2"))
	for _, in := range page.Interruptions {
		if in.EventID != page.ID || !in.Start.Equal(time.Date(2026, 1, 3, 7, 0, 0, 0, time.UTC)) {
			t.Errorf("not of the event: %+v", in)
		}
	}
}

func TestHealthNoAction(t *testing.T) {
	t.Parallel()
	set := func(field string, value any) func(_, _ map[string]any) {
		return func(_, d map[string]any) { d[field] = value }
	}
	entity := func(value, status string) any {
		return []any{map[string]any{"entityValue": value, "status": status}}
	}
	const code = "AWS_EC2_INSTANCE_STOP"
	for name, c := range map[string]struct {
		change func(event, detail map[string]any)
		want   string
	}{
		"of another service":     {set("service", "RDS"), `"RDS", not EC2`},
		"an issue":               {set("eventTypeCategory", "issue"), `"issue"`},
		"a notification":         {set("eventTypeCategory", "accountNotification"), `"accountNotification"`},
		"a backup":               {set("backupEvent", "true"), "backup"},
		"a backup, as a boolean": {set("backupEvent", true), "backup"},
		"closed":                 {set("statusCode", "closed"), "closed"},
		"cancelled":              {set("eventTypeCode", code+"_CANCELLED"), code + "_CANCELLED means"},
		"completed":              {set("eventTypeCode", code+"_COMPLETED"), "has ended"},
		"a volume's":             {set("affectedEntities", entity("vol-0aaaaaaaaaaaaaaa3", "PENDING")), "no affected EC2 instance"},
		"another service's ARN": {set("affectedEntities",
			entity("arn:aws:ssm:us-east-1:123456789012:instance/"+instance, "PENDING")), "no affected EC2 instance"},
		"an ARN with more behind": {set("affectedEntities",
			entity("arn:aws:ec2:us-east-1:123456789012:instance/"+instance+"/x", "PENDING")),
			"no affected EC2 instance"},
		"resolved":         {set("affectedEntities", entity(instance, "RESOLVED")), "no affected EC2 instance"},
		"no entities":      {set("affectedEntities", []any{}), "no affected EC2 instance"},
		"without entities": {set("affectedEntities", nil), "no affected EC2 instance"},
		"no entities and no time": {func(_, d map[string]any) { d["affectedEntities"] = nil; delete(d, "startTime") },
			"no affected EC2 instance"},
		"closed, and at no time": {func(_, d map[string]any) { d["statusCode"] = "closed"; delete(d, "startTime") },
			"closed"},
	} {
		t.Run(name, func(t *testing.T) { requireNoAction(t, changed(t, "health-scheduled-change", c.change), c.want) })
	}
	requireNoAction(t, sample(t, "health-backup"), "backup")
	requireNoAction(t, sample(t, "health-dedicated-host"), "no affected EC2 instance")
}

func TestHealthScheduledChanges(t *testing.T) {
	t.Parallel()
	set := func(field string, value any) func(_, _ map[string]any) {
		return func(_, d map[string]any) { d[field] = value }
	}
	for name, change := range map[string]func(_, _ map[string]any){
		"upcoming":                    set("statusCode", "upcoming"),
		"without a status":            set("statusCode", nil),
		"no backup, as a boolean":     set("backupEvent", false),
		"that says nothing of it":     set("backupEvent", nil),
		"expedited":                   set("eventTypeCode", "AWS_EC2_INSTANCE_RETIREMENT_EXPEDITED"),
		"of a code that is not known": set("eventTypeCode", "AWS_EC2_SOMETHING_ELSE"),
		"pages in numbers":            func(_, d map[string]any) { d["page"], d["totalPages"] = 1, 1 },
		"an entity without a status":  set("affectedEntities", []any{map[string]any{"entityValue": instance}}),
		"of another partition": set("affectedEntities",
			[]any{map[string]any{"entityValue": "arn:aws-cn:ec2:cn-north-1:123456789012:instance/" + instance}}),
		"an ARN with a zone": set("affectedEntities",
			[]any{map[string]any{"entityValue": "arn:aws:ec2:us-east-1b::instance/" + instance}}),
	} {
		t.Run(name, func(t *testing.T) {
			if got := affected(t, changed(t, "health-scheduled-change", change)); len(got) != 1 || got[0] != instance {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestHealthStartTimes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Time{
		"Thu, 15 Jan 2026 07:00:00 GMT":   time.Date(2026, 1, 15, 7, 0, 0, 0, time.UTC),
		"Fri, 3 Jun 2022 05:01:10 GMT":    time.Date(2022, 6, 3, 5, 1, 10, 0, time.UTC),
		"Fri, 03 Jun 2022 05:01:10 GMT":   time.Date(2022, 6, 3, 5, 1, 10, 0, time.UTC),
		"Thu, 27 Jan 2026 13:44:13 GMT":   time.Date(2026, 1, 27, 13, 44, 13, 0, time.UTC), // a Tuesday
		"Thu, 15 Jan 2026 07:00:00 UTC":   time.Date(2026, 1, 15, 7, 0, 0, 0, time.UTC),
		"Thu, 15 Jan 2026 07:00:00 -0800": time.Date(2026, 1, 15, 15, 0, 0, 0, time.UTC),
	} {
		got := decode(t, changed(t, "health-scheduled-change", func(_, d map[string]any) { d["startTime"] = text }))
		if in := got.Interruptions[0]; in.Start != want {
			t.Errorf("%s: got %s, want %s", text, in.Start, want)
		}
	}
}

// TestHealthOrganizationView: the envelope names the account and region that received the event.
func TestHealthOrganizationView(t *testing.T) {
	t.Parallel()
	if in := decode(t, sample(t, "health-organization")).Interruptions[0]; in.Account != "123456789012" {
		t.Errorf("the account is %s", in.Account)
	}
	in := decode(t, changed(t, "health-scheduled-change",
		func(e, d map[string]any) { e["region"], d["eventRegion"] = "us-west-2", "eu-west-1" })).Interruptions[0]
	if in.Region != "eu-west-1" {
		t.Errorf("the region is %s", in.Region)
	}
	in = decode(t, changed(t, "health-scheduled-change",
		func(_, d map[string]any) { delete(d, "affectedAccount"); delete(d, "eventRegion") })).Interruptions[0]
	if in.Account != "123456789012" || in.Region != "us-east-1" {
		t.Errorf("without them: %+v", in)
	}
}
