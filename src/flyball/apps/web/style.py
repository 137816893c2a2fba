"""The report's style sheet: one page, light, dark and printed. Colours keep their order for colour-blind readers."""

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f8;--card:#ffffff;--ink:#16191d;--soft:#59626d;--line:#dde1e6;--grid:#e8ebee;
--accent:#1f63b5;--band:#1f63b522;--truth:#c2410c;--faint:#9aa4af;--warn:#fff6e5;--warnline:#d9a441;
--s0:#1f63b5;--s1:#e08214;--s2:#1b8a73;--s3:#a63d7d;--s4:#7a869a;--s5:#c8a415;--s6:#6a51a3;--s7:#b2453c}
@media(prefers-color-scheme:dark){:root{--page:#101316;--card:#171b20;--ink:#e9ecef;--soft:#9ba6b2;--line:#2b323a;
--grid:#252b32;--accent:#6aa9ef;--band:#6aa9ef2e;--truth:#ff9a5c;--faint:#5d6874;--warn:#2b2415;--warnline:#a5803a;
--s0:#5b9be3;--s1:#e99a3e;--s2:#3bb096;--s3:#d075ab;--s4:#8e9aac;--s5:#d6b840;--s6:#9a86d1;--s7:#de766c}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:960px;margin:0 auto;padding:40px 16px 56px}
header{padding:0 4px 8px}
.eyebrow{margin:0;color:var(--soft);font-size:13px;letter-spacing:.02em}
h1{margin:4px 0 8px;font-size:29px;line-height:1.2;font-weight:650;letter-spacing:-.01em;text-wrap:balance}
.facts{margin:0;color:var(--soft)}.facts b{color:var(--ink);font-weight:600}
.tiles{display:flex;flex-wrap:wrap;gap:1px;margin:24px 0 0;
background:var(--line);border:1px solid var(--line);border-radius:10px;overflow:hidden}
.tiles div{flex:1 1 150px;background:var(--card);padding:14px 16px}
dt{color:var(--soft);font-size:13px}dd{margin:2px 0 0;font-size:25px;font-weight:650;font-variant-numeric:tabular-nums}
dd small{display:block;font-size:13px;font-weight:400;color:var(--soft)}
aside{margin:16px 0 0;padding:12px 16px;background:var(--warn);border-left:3px solid var(--warnline);border-radius:4px}
aside h3{margin:0;font-size:14px}aside ul{margin:4px 0 0;padding-left:18px}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:22px 24px 18px;margin:20px 0 0}
h2{margin:0;font-size:18px;font-weight:650}
.says{margin:4px 0 16px;color:var(--soft);max-width:86ch;text-wrap:pretty}
figure{margin:0;overflow-x:auto}figure>svg{min-width:620px}
svg{display:block;max-width:100%;height:auto;font-family:inherit;overflow:visible}
svg text{fill:var(--ink);font-size:13px}
svg .tick{fill:var(--soft);font-size:12.5px}svg .small{font-size:11.5px}svg .note{fill:var(--soft);font-size:12px}
svg .legend{fill:var(--ink);font-size:13px}svg .value{font-weight:600;font-variant-numeric:tabular-nums}
svg .halo{paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
svg .panel{font-weight:600;font-size:13px}
.grid{stroke:var(--grid)}.axis{stroke:var(--faint)}.event{stroke:var(--faint);stroke-dasharray:3 3}
.band{fill:var(--band)}.curve{fill:none;stroke:var(--accent);stroke-width:2.2;stroke-linejoin:round}
.whisker{stroke:var(--accent);stroke-width:1.4}.mark{fill:var(--accent);stroke:var(--card);stroke-width:2}
.bar{fill:var(--accent)}
.fit{fill:var(--accent);background:var(--accent)}.unfit{fill:var(--card);stroke:var(--faint);stroke-dasharray:3 2}
.centre{stroke:var(--card);stroke-width:2}.centre.faint{stroke:var(--faint)}
.truth{fill:var(--truth);stroke:var(--card);stroke-width:1.2}.ring{stroke:var(--card);stroke-width:1.5}
.s0{fill:var(--s0)}.s1{fill:var(--s1)}.s2{fill:var(--s2)}.s3{fill:var(--s3)}
.s4{fill:var(--s4)}.s5{fill:var(--s5)}.s6{fill:var(--s6)}.s7{fill:var(--s7)}
svg .on0,svg .on1,svg .on2,svg .on3,svg .on4,svg .on5,svg .on6,svg .on7{fill:#fff;font-weight:600;font-size:12.5px}
svg .on1,svg .on4,svg .on5{fill:#16191d}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(262px,1fr));gap:22px 16px}
.key{display:flex;flex-wrap:wrap;align-items:center;gap:4px 8px;margin:0 0 14px;font-size:13px;color:var(--soft)}
.swatch{display:inline-block;width:22px;height:9px;border-radius:2px;margin-left:12px}.swatch:first-child{margin-left:0}
.swatch.unfit{border:1px dashed var(--faint);background:none}
.swatch.diamond{width:9px;border-radius:0;background:var(--truth);transform:rotate(45deg)}
details{margin-top:14px;border-top:1px solid var(--line);padding-top:8px}
summary{cursor:pointer;color:var(--soft);font-size:13px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;min-width:min(100%,340px);margin-top:6px;font-size:13px;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:4px 12px;border-bottom:1px solid var(--grid);white-space:nowrap}
th{color:var(--soft);font-weight:500;border-bottom-color:var(--line)}
th.text,td.text{text-align:left}
th:first-child,td:first-child{text-align:left;padding-left:0}th:last-child,td:last-child{padding-right:0}
tbody tr:last-child td{border-bottom:0}
footer{margin:24px 4px 0;color:var(--soft);font-size:13px;max-width:80ch}
@media print{:root{--page:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc;--grid:#e5e5e5;--accent:#1f63b5;
--band:#1f63b522;--truth:#c2410c;--faint:#888;--s0:#1f63b5;--s1:#e08214;--s2:#1b8a73;--s3:#a63d7d;--s4:#7a869a;
--s5:#c8a415;--s6:#6a51a3;--s7:#b2453c}
body{font-size:11pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}main{max-width:none;padding:0}
section{border:0;padding:14px 0;margin:0}figure,tr,h2,.says{break-inside:avoid}h2,.says{break-after:avoid}
thead{display:table-header-group}figure>svg{min-width:0}.scroll{overflow:visible}td{padding:3px 6px}
th,td.text{white-space:normal;padding:3px 6px}.tiles div{flex-basis:110px;padding:10px 12px}
dd{font-size:17px;white-space:nowrap}}
"""
