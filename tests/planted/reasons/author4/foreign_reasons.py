"""Reasons in other languages, and slots' words in them."""
# ruff: noqa: E501

COLOURS = {
    "红": ("red", "赤", "빨간"), "橙": ("orange", "オレンジ", "주황"), "黄": ("yellow", "黄色い", "노란"), "绿": ("green", "緑の", "초록"),
    "青": ("teal", "青緑の", "청록"), "蓝": ("blue", "青い", "파란"), "紫": ("purple", "紫の", "보라"), "粉": ("pink", "ピンク", "분홍"),
}  # fmt: skip
KINDS: dict[str, str] = {
    "商品页": "A big product picture with a {c} price below it|One large item photo and {c} buy buttons|大きな商品写真と{k}値段がある|큰 상품 사진과 {h}색 가격이 보인다"
    "|big picture 加 {c} price 和 buy button|Large hero image, {c} digits for the price",
    "规格选择页": "A sheet with size chips, one marked {c}|Several option blocks, the chosen one is {c}|選択肢のブロックが並び{k}枠がある|옵션 칸이 여러 개이고 하나는 {h}색이다"
    "|popup 里 many size chips 可选 one selected|Bottom sheet covers the page, chips in rows",
    "订单详情页": "A {c} status band with a tick and an address pin|Address pin, goods card and rows of figures|{k}帯にチェック、住所ピンもある|{h}색 상태 띠와 주소 핀이 있다"
    "|status bar 是 {c} with a tick mark|Tick on a {c} strip, then item cards and fees",
    "支付页": "A huge amount in the middle and radio dots|Keypad and a large sum of money|中央に大きな金額が出ている|가운데에 큰 금액이 있고 {h}색 버튼이다|big amount 在 center with radio buttons"
    "|Large number centred, {c} button underneath",
    "物流页": "A vertical timeline whose first dot is {c}|Dots joined by a line, tracking number on top|縦に点が並び先頭は{k}点|세로로 점이 이어지고 첫 점은 {h}색|timeline 的 first dot is {c}"
    "|Parcel route nodes from top to bottom",
    "购物车页": "Round boxes at the left and a total at the bottom|Ticked items with a sum below, {c} button|左に丸いチェック欄、下に合計|왼쪽에 동그라미, 아래에 합계가 있다"
    "|left checkbox 和 total at bottom|Rows with check circles, total in {c}",
    "评价页": "Avatars with rows of stars|Several people and their star ratings|アバターと星が並んでいる|아바타와 별점이 여러 줄 있다|avatar 旁边 five stars rating|Stars next to round heads, short texts",
    "退款页": "A {c} arrow turning back beside an amount|Step dots in a row and a return arrow|{k}戻り矢印と金額がある|{h}색 되돌이 화살표와 금액|return arrow 旁边 amount shown"
    "|Curved {c} arrow, then empty plus boxes",
    "实物照片": "A real photo of a {c} thing on a table|Dark noisy background, object with a shadow|暗い背景に実物が写っている|어두운 배경에 {h}색 물건이 찍혔다|real photo 的 {c} object on desk"
    "|Camera shot, cracks across the surface",
    "优惠券页": "{c} tickets with notches and amounts|A stack of coupons, numbers on the left|切り欠きのある券が並ぶ|홈이 있는 {h}색 쿠폰이 여러 장|several tickets 有 notch and amount|Notched {c} vouchers, one under another",
    "询问发货时间": "The user asks when it will be sent out|Wants to know the shipping day|いつ発送されるかを聞いている|언제 보내 주는지 묻고 있다|user 问 when will it ship out|Last message asks about dispatch",
    "询问尺码": "The buyer asks which size fits|Asks whether it runs large or small|どのサイズが合うか尋ねている|어떤 사이즈가 맞는지 묻는다|user asks 哪个 size fits|He gives his weight and asks for a size",
    "询问材质": "The user asks what fabric it is made of|Wants to know if it is pure cotton|素材は何かと聞いている|무슨 소재인지 물어본다|asks about 面料 material cotton or not|Question about the cloth and its feel",
    "申请退款": "The user wants the money back|Does not want it any more, asks to return|もう要らないので返金してほしい|환불해 달라고 한다|user wants 退 money back now|Says the order should be cancelled",
    "反馈破损": "It arrived broken, the user says|The buyer complains about a crack|届いたら壊れていたと言う|받아 보니 깨졌다고 한다|item is broken 收到就 cracked|Damage on arrival is described",
    "询问优惠": "The user asks for a coupon|Wants a lower price or a discount|割引やクーポンを尋ねている|할인이 있는지 묻는다|any coupon 或 discount for me|Is it on sale, asks the customer",
    "查询物流": "The user asks where the parcel is|Wants the tracking number|荷物がどこか聞いている|택배가 어디 있는지 묻는다|where is my 快递 parcel now|Courier has not moved, user worries",
    "询问用法": "The user asks how to use it|How to wash it is the question|使い方を尋ねている|어떻게 쓰는지 물어본다|how to use 这个 thing please|ImageHashes for a manual or a video",
}
