package awsadmin

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// productDocument returns the document of a product, in the form of the example of "aws pricing get-products" in the
// AWS CLI Command Reference. It was never compared with a response of the API.
func productDocument(name, dimensions string) string {
	return `{"product":{"productFamily":"Compute Instance","attributes":{"instanceType":"` + name + `","memory":"8 GiB","vcpu":"2",` +
		`"capacitystatus":"Used","regionCode":"eu-west-1","servicecode":"AmazonEC2","operatingSystem":"Linux","tenancy":"Shared",` +
		`"preInstalledSw":"NA","marketoption":"OnDemand","operation":"RunInstances"},"sku":"SKU"},"serviceCode":"AmazonEC2","terms":{"OnDemand":` +
		`{"SKU.JRTCKXETXF":{"priceDimensions":{` + dimensions + `},"sku":"SKU","effectiveDate":"2026-11-01T00:00:00Z","offerTermCode":"JRTCKXETXF",` +
		`"termAttributes":{}}},"Reserved":{"SKU.38NPMPTW36":{"priceDimensions":{"SKU.38NPMPTW36.2TG2D8R56U":{"unit":"Quantity",` +
		`"pricePerUnit":{"USD":"500"}}}}}},"version":"20261101000000","publicationDate":"2026-11-01T00:00:00Z"}`
}

func perHour(usd string) string {
	return `"SKU.JRTCKXETXF.6YS6EN2CT7":{"unit":"Hrs","endRange":"Inf","description":"$` + usd + ` per On Demand Linux Instance Hour","appliesTo":[],` +
		`"rateCode":"SKU.JRTCKXETXF.6YS6EN2CT7","beginRange":"0","pricePerUnit":{"USD":"` + usd + `"}}`
}

// priceServer serves one page after another of each action, and records the requests.
type priceServer struct {
	pages map[string][]string
	asked map[string][]string // bodies
	scope []string
}

func (s *priceServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	action := "GetProducts"
	if form, err := url.ParseQuery(string(body)); err == nil && form.Has("Action") {
		action = form.Get("Action")
	}
	s.scope = append(s.scope, r.Header.Get("Authorization"))
	n := len(s.asked[action])
	s.asked[action] = append(s.asked[action], string(body))
	text := s.pages[action][n]
	if action == "GetProducts" {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	} else {
		text = "<" + action + "Response>" + text + "</" + action + "Response>"
	}
	_, _ = io.WriteString(w, text)
}

func (s *priceServer) account(t *testing.T, region string) *Account {
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.asked = map[string][]string{}
	return New(aws.Config{Region: region, BaseEndpoint: &server.URL, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})
}

func products(next string, documents ...string) string {
	text, _ := json.Marshal(map[string]any{"FormatVersion": "aws_v1", "NextToken": next, "PriceList": documents})
	return string(text)
}

func TestOnDemandPrices(t *testing.T) {
	wanted := []string{"m5.large", "m5.xlarge"}
	for name, c := range map[string]struct {
		documents []string
		want      map[string]float64
		fails     string
	}{
		"two types, and one that nobody needs": {[]string{productDocument("m5.large", perHour("0.1070000000")), productDocument("m5.xlarge", perHour("0.2140000000")),
			productDocument("x1.32xlarge", "")}, map[string]float64{"m5.large": 0.107, "m5.xlarge": 0.214}, ""},
		"the same price twice": {[]string{productDocument("m5.large", perHour("0.107")), productDocument("m5.large", perHour("0.1070"))}, map[string]float64{"m5.large": 0.107}, ""},
		"two prices":           {[]string{productDocument("m5.large", perHour("0.107")), productDocument("m5.large", perHour("0.2"))}, nil, `price of "m5.large" in region eu-west-1: two prices`},
		"no price":             {[]string{productDocument("m5.large", "")}, nil, "0 prices per hour"},
		"a price for the first hours": {[]string{productDocument("m5.large", perHour("0.107")+`,"x":{"unit":"Hrs","pricePerUnit":{"USD":"0.2"}}`)}, nil,
			"2 prices per hour"},
		"free":             {[]string{productDocument("m5.large", perHour("0.0000000000"))}, nil, `invalid price "0.0000000000"`},
		"another currency": {[]string{productDocument("m5.large", `"x":{"unit":"Hrs","pricePerUnit":{"CNY":"1"}}`)}, nil, `invalid price ""`},
		"per second":       {[]string{productDocument("m5.large", `"x":{"unit":"Second","pricePerUnit":{"USD":"1"}}`)}, nil, "0 prices per hour"},
		"an odd one among others": {[]string{productDocument("m5.large", perHour("0")), productDocument("m5.xlarge", perHour("0.214")), "<html>"},
			map[string]float64{"m5.xlarge": 0.214}, ""},
		"two prices of one, among others": {[]string{productDocument("m5.large", perHour("0.1")), productDocument("m5.large", perHour("0.2")),
			productDocument("m5.large", perHour("0.1")), productDocument("m5.xlarge", perHour("0.214"))}, map[string]float64{"m5.xlarge": 0.214}, ""},
		"not JSON": {[]string{"<html>"}, nil, "invalid character"},
	} {
		s := &priceServer{pages: map[string][]string{"GetProducts": {products("2", c.documents[0]), products("", c.documents[1:]...)}}}
		got, err := s.account(t, "eu-west-1").OnDemandPrices(t.Context(), wanted)
		if c.fails == "" && (err != nil || !reflect.DeepEqual(got, c.want)) || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails) ||
			!strings.HasSuffix(err.Error(), ": use --prices")) {
			t.Errorf("%s: got %v, %v; want %v, %q", name, got, err, c.want, c.fails)
		}
		asked := s.asked["GetProducts"]
		for _, says := range []string{`{"Field":"regionCode","Type":"TERM_MATCH","Value":"eu-west-1"}`, `{"Field":"tenancy","Type":"TERM_MATCH","Value":"Shared"}`,
			`"ServiceCode":"AmazonEC2"`} {
			if len(asked) != 2 || !strings.Contains(asked[0], says) || !strings.Contains(asked[1], `"NextToken":"2"`) {
				t.Errorf("%s: %s is missing in %q", name, says, asked)
			}
		}
	}
}

// TestPriceListRegion: the API is available in few regions, and only there.
func TestPriceListRegion(t *testing.T) {
	for region, want := range map[string]string{"eu-west-1": "eu-central-1", "ap-southeast-2": "ap-south-1", "us-west-2": "us-east-1", "sa-east-1": "us-east-1",
		"cn-north-1": "", "us-gov-west-1": "", "eusc-de-east-1": "", "us-iso-east-1": ""} {
		s := &priceServer{pages: map[string][]string{"GetProducts": {products("")}}}
		_, err := s.account(t, region).OnDemandPrices(t.Context(), nil)
		switch {
		case want == "" && (err == nil || len(s.scope) > 0 || !strings.Contains(err.Error(), "not available for region "+region+": use --prices")):
			t.Errorf("%s: %v, %q", region, err, s.scope)
		case want != "" && (err != nil || len(s.scope) != 1 || !strings.Contains(s.scope[0], "/"+want+"/pricing/aws4_request")):
			t.Errorf("%s: %v, %q; want %s", region, err, s.scope, want)
		}
	}
}

func TestSpotPrices(t *testing.T) {
	item := func(kind, zone, price, at string) string {
		return fmt.Sprintf("<item><instanceType>%s</instanceType><availabilityZone>%s</availabilityZone><spotPrice>%s</spotPrice><timestamp>%s</timestamp>"+
			"<productDescription>Linux/UNIX</productDescription></item>", kind, zone, price, at)
	}
	const older, newer = "2026-11-01T00:00:00.000Z", "2026-11-02T00:00:00.000Z"
	page := func(next string, items ...string) string {
		return "<spotPriceHistorySet>" + strings.Join(items, "") + "</spotPriceHistorySet><nextToken>" + next + "</nextToken>"
	}
	s := &priceServer{pages: map[string][]string{"DescribeSpotPriceHistory": {
		page("2", item("m5.large", "eu-west-1a", "0.041000", older), item("m5.large", "eu-west-1b", "0.042000", older)),
		page("", item("m5.large", "eu-west-1a", "0.043000", newer), item("c5.large", "eu-west-1b", "0.044000", older))}}}
	got, err := s.account(t, "eu-west-1").SpotPrices(t.Context(), []string{"m5.large", "c5.large"}, []string{"eu-west-1a", "eu-west-1b"})
	if want := []SpotPrice{{"c5.large", "eu-west-1b", 0.044}, {"m5.large", "eu-west-1a", 0.043}, {"m5.large", "eu-west-1b", 0.042}}; err != nil ||
		!reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	asked := s.asked["DescribeSpotPriceHistory"]
	form, _ := url.ParseQuery(asked[0])
	if form.Get("StartTime") == "" || form.Get("StartTime") != form.Get("EndTime") || form.Get("ProductDescription.1") != "Linux/UNIX" ||
		form.Get("InstanceType.2") != "c5.large" || form.Get("Filter.1.Value.2") != "eu-west-1b" || len(asked) != 2 {
		t.Errorf("asked %q", asked)
	}
	s = &priceServer{pages: map[string][]string{"DescribeSpotPriceHistory": {page("", item("m5.large", "eu-west-1a", "0", newer))}}}
	if _, err := s.account(t, "eu-west-1").SpotPrices(t.Context(), []string{"m5.large"}, []string{"eu-west-1a"}); err == nil {
		t.Error("a price of 0 was accepted")
	}
}

func TestInstanceTypes(t *testing.T) {
	s := &priceServer{pages: map[string][]string{"DescribeInstanceTypes": {`<instanceTypeSet>
		<item><instanceType>m6g.large</instanceType><supportedUsageClasses><item>on-demand</item><item>spot</item></supportedUsageClasses>
			<processorInfo><supportedArchitectures><item>arm64</item></supportedArchitectures></processorInfo><vCpuInfo><defaultVCpus>2</defaultVCpus></vCpuInfo>
			<memoryInfo><sizeInMiB>8192</sizeInMiB></memoryInfo>
			<networkInfo><maximumNetworkInterfaces>3</maximumNetworkInterfaces><ipv4AddressesPerInterface>10</ipv4AddressesPerInterface></networkInfo></item>
		</instanceTypeSet><nextToken>2</nextToken>`,
		`<instanceTypeSet><item><instanceType>g4dn.12xlarge</instanceType><supportedUsageClasses><item>on-demand</item></supportedUsageClasses>
			<processorInfo><supportedArchitectures><item>i386</item><item>x86_64</item></supportedArchitectures></processorInfo>
			<gpuInfo><gpus><item><count>4</count></item></gpus></gpuInfo></item></instanceTypeSet>`}}}
	got, err := s.account(t, "eu-west-1").InstanceTypes(t.Context(), []string{"m6g.*", "g4dn.*"})
	if want := []InstanceType{{Name: "g4dn.12xlarge", Architecture: "amd64", GPUs: 4},
		{Name: "m6g.large", CPUs: 2, MemoryMiB: 8192, Architecture: "arm64", Pods: 29, Spot: true}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if asked := s.asked["DescribeInstanceTypes"]; !strings.Contains(asked[0], "Filter.1.Name=instance-type&Filter.1.Value.1=m6g.%2A&Filter.1.Value.2=g4dn.%2A") {
		t.Errorf("asked %q", asked)
	}
}
