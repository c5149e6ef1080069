package aws

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Prices are made-up prices in US dollars per hour. moto has the same price for everything.
type Prices struct {
	OnDemand map[string]float64            // by type
	Spot     map[string]map[string]float64 // by type and zone
}

// SpotHistory responds to ec2:DescribeSpotPriceHistory for the prices in effect now. It refuses other requests, as if
// EC2 had no such history.
func (p Prices) SpotHistory(form url.Values) (body string, ok bool) {
	q := params{form: form, used: map[string]bool{}}
	names, products, filters := q.list("InstanceType"), q.list("ProductDescription"), q.filters()
	if now := form.Get("StartTime"); now == "" || now != form.Get("EndTime") || !slices.Equal(products, []string{"Linux/UNIX"}) ||
		len(filters) != 1 || filters[0].Name != "availability-zone" {
		return "", false
	}
	var items []element
	for _, name := range names {
		for _, zone := range slices.Sorted(maps.Keys(p.Spot[name])) {
			if slices.Contains(filters[0].Values, zone) {
				items = append(items, group("item", text("instanceType", name), text("availabilityZone", zone),
					text("productDescription", "Linux/UNIX"), text("timestamp", form.Get("StartTime")),
					text("spotPrice", strconv.FormatFloat(p.Spot[name][zone], 'f', 6, 64))))
			}
		}
	}
	out, err := xml.Marshal(group("DescribeSpotPriceHistoryResponse", group("spotPriceHistorySet", items...)))
	return string(out), err == nil
}

// Products responds to pricing:GetProducts with one page of all products, in the form of the example of "aws pricing
// get-products" in the AWS CLI Command Reference. It was never compared with a response of the API.
func (p Prices) Products() string {
	var documents []string
	for _, name := range slices.Sorted(maps.Keys(p.OnDemand)) {
		sku := strings.ToUpper(strings.ReplaceAll(name, ".", ""))
		documents = append(documents, fmt.Sprintf(`{"product":{"productFamily":"Compute Instance","attributes":{"instanceType":%q,`+
			`"operatingSystem":"Linux","tenancy":"Shared","capacitystatus":"Used","preInstalledSw":"NA"},"sku":%q},"serviceCode":"AmazonEC2",`+
			`"terms":{"OnDemand":{"%[2]s.JRTCKXETXF":{"priceDimensions":{"%[2]s.JRTCKXETXF.6YS6EN2CT7":{"unit":"Hrs","beginRange":"0",`+
			`"endRange":"Inf","appliesTo":[],"pricePerUnit":{"USD":"%.10f"}}},"sku":%[2]q,"offerTermCode":"JRTCKXETXF","termAttributes":{}}}}}`,
			name, sku, p.OnDemand[name]))
	}
	out, _ := json.Marshal(map[string]any{"FormatVersion": "aws_v1", "PriceList": documents})
	return string(out)
}
