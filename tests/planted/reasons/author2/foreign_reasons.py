"""Bad reasons that are not Chinese, each true of its label: English, Japanese, Korean, and mixtures of them."""

FOREIGN: dict[str, str] = {
    "商品页": """
One big product picture with a price below
Large item photo, price and buy buttons
大きな商品写真の下に価格とボタンがある
큰 상품 사진 아래에 가격이 있다
Big 主图 plus price and buy button at the bottom
メイン画像と値段が並んでいる
""",
    "规格选择页": """
A sheet with option chips, one is selected
The popup lists sizes and variants to pick
下から出たシートに選択肢が並んでいる
아래 팝업에 옵션 블록이 여러 개 보인다
The 弹层 shows many option chips to choose
サイズを選ぶボタンが多い
""",
    "订单详情页": """
Status bar with a tick and an address pin
Order lines, item card and shipping address
チェック付きの状態バーと住所ピンが見える
체크 표시가 있는 상태 바와 주소 핀
status bar有tick，address pin below, item rows
注文の明細と商品カードがある
""",
    "支付页": """
A large amount is shown in the middle
Amount to pay in huge digits at the centre
中央に大きな金額が表示されている
가운데에 큰 글씨로 금액이 적혀 있다
Big 金额 centered, it is the payment screen
支払う金額がとても大きく出ている
""",
    "物流页": """
A vertical timeline of delivery nodes
Parcel tracking dots run from top to bottom
縦に並んだ点で荷物の経路を示している
세로로 이어진 배송 단계 점들이 보인다
Vertical timeline，节点 are connected by a line
荷物がどこにあるか一覧できる
""",
    "购物车页": """
Item list with ticked circles and a total
Checkboxes on the left, total at the bottom
左に丸いチェック、下に合計がある
왼쪽에 체크 원, 아래에 합계가 있다
Left side checkbox list，bottom shows 合计 total
まとめて会計するリストである
""",
    "评价页": """
Avatars with star ratings and comments
Several buyers left stars and short reviews
アイコンと星がついたコメントが並ぶ
아바타와 별점이 달린 후기가 있다
Avatars + 星星, users left reviews here
""",
    "退款页": """
A return arrow beside the refunded amount
The round arrow and amount show money back
戻る矢印と返金額が表示されている
되돌아가는 화살표와 금액이 보인다
A 回转箭头 icon next to refund amount
""",
    "实物照片": """
A real photo of an object, dark background
Taken with a camera, not a screen capture
暗い背景で撮った実物の写真です
어두운 배경에서 찍은 실제 사진이다
Real camera photo，背景 is dark and noisy
""",
    "优惠券页": """
Several notched tickets with amounts
Stacked vouchers, each with its own value
切り欠きのある券が何枚も並んでいる
금액이 적힌 쿠폰이 여러 장 있다
Many notched ticket，each has 面额 on it
""",
    "询问发货时间": """
The user asks when the item will be sent
Customer wants to know the dispatch date
ユーザーは発送がいつかを聞いている
고객이 언제 발송되는지 묻고 있다
User问 when will the order ship, so shipping time
""",
    "询问尺码": """
The user is not sure which size to take
Asks whether the size would fit
どのサイズを選べばよいか尋ねている
고객이 어떤 사이즈가 맞는지 묻는다
User asks about 尺码 before buying, size question
""",
    "询问材质": """
The user asks what it is made of
Customer is curious about the fabric used
何の素材でできているかを聞いている
무슨 소재로 만들었는지 물어본다
asks about the 面料 and material of this item
""",
    "申请退款": """
The customer wants the money back
User no longer wants it, asks for a refund
返金してほしいと言っている
고객이 환불을 요구하고 있다
User wants 退钱, please refund this order
""",
    "反馈破损": """
The user says the item arrived damaged
Customer complains that it came broken
届いた商品が壊れていたと訴えている
받은 상품이 망가졌다고 말한다
Item arrived broken，user is complaining 坏了
""",
    "询问优惠": """
The user asks for a discount or coupon
Customer is bargaining for a lower price
割引やクーポンがあるか聞いている
할인이나 쿠폰이 있는지 물어본다
any discount? the user想要 coupon or lower price
""",
    "查询物流": """
The user asks where the parcel is now
Customer tracks a package on its way
荷物が今どこにあるか聞いている
택배가 지금 어디 있는지 묻는다
Where is my 快递? user tracks the parcel
""",
    "询问用法": """
The user asks how to use the product
Needs instructions for handling the item
使い方が分からないので質問している
제품을 어떻게 쓰는지 묻고 있다
User不会用, needs a how-to for the item
""",
}
MORE = """
画面全体から判断できる内容です
내용을 보면 바로 알 수 있다
Clear from what is shown and said here
这个 item shows clearly what it is about, see text
"""

SHORT = """
有 钱 图 对 是 好 看 页 问 价格 页面 图片 截图 对话 用户 客服 如上 同上 无 东西 见图 没写 可以 看图 问问题 不清楚
"""
BARE = (
    "{}",
    "{}。",
    "“{}”",
    "是{}",
    "属于{}",
    "这是{}",
    "{0}，{0}",
    "标签：{}",
    "类别是{}",
    "即{}。",
    "【{}】",
    "{}！",
)
"""The label again and no more."""
