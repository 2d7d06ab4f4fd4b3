"""Planted reasons written whole: near-identical, bare and foreign ones, and good ones that look bad.

Slots are those of sentence_parts.py. Turns of a dialogue are parted by `/`; a screen has none.
"""

from typing import NamedTuple


class Family(NamedTuple):
    """A template that is used `size` times within a class."""

    label: str
    size: int
    said: str
    reason: str


FAMILIES = (
    Family("商品页", 8, "", "页面上方是一张{c}色{p}的大图，下方有红色价格和立即购买按钮"),
    Family("规格选择页", 7, "", "弹窗中展示了{p}的颜色和尺码，选中的是{c}色，底部有确定按钮"),
    Family("订单详情页", 6, "", "页面显示收货地址、订单编号以及{p}的实付款{m}元，信息完整列出"),
    Family("支付页", 6, "", "页面中央显示付款金额{m}元，下方可以选择付款方式并确认付款"),
    Family("物流页", 8, "", "页面显示包裹从{q}发出后的运输轨迹，最新状态为运输中"),
    Family("购物车页", 5, "", "列表里有{p}等待结算的商品，左侧可勾选，底部显示合计{m}元"),
    Family("评价页", 6, "", "页面展示买家对{p}的评价，包含头像、星级和文字评论"),
    Family("退款页", 5, "", "页面展示退款进度，退款金额为{m}元，正等待商家处理"),
    Family("实物照片", 7, "", "照片里是一个放在桌面上的{c}色{p}，为手机相机实拍"),
    Family("优惠券页", 5, "", "页面列出{n}张可领取的优惠券，每张都写有面额和使用期限"),
    Family("询问发货时间", 8, "用户: {p}什么时候能发货", "用户在对话最后询问{p}什么时候能发货，想知道发货时间"),
    Family("询问尺码", 6, "用户: {h}公斤穿{w}选什么码", "用户提供体重{h}公斤，询问{w}应该选择多大的码数"),
    Family("询问材质", 5, "用户: {w}是什么面料", "用户想了解{w}是用什么面料做成的，关心材料成分"),
    Family("申请退款", 7, "用户: {p}我不要了，退我钱", "用户表示收到的{p}不想要了，要求商家把钱退回来"),
    Family("查询物流", 6, "用户: {p}的快递{n}天没动了", "用户反映{p}的快递{n}天没有更新，询问包裹现在在哪里"),
    Family("询问优惠", 5, "用户: 买{n}件{p}有优惠吗", "用户咨询购买{n}件{p}是否有优惠，希望价格便宜一些"),
)
SWAPS = (("显示", "展示"), ("下方", "下面"), ("用户", "买家"), ("页面", "界面"), ("询问", "咨询"), ("想", "希望"))
"""One word for another, now and then, within a family."""

_BARE = """
    价格 退 大图 有券 快递 物流 坏了 尺码 评价 支付 订单 星星 裂纹 便宜 用法 材质 发货 合计 对勾 问码 弹窗 照片
    无 是 退款。
"""
BARE = tuple(_BARE.split())
"""One to three characters."""

_RESTATED = """
    {l} {l}。 属于{l} 这是{l} 类别：{l} 因为是{l} {l}，{l} 所以是{l}。 “{l}” 应为{l} 即{l} 是{l}。 判为{l}
    答：{l} 理由：{l} 就是{l} {l}！ 归为{l} 选{l} {l}类 标签：{l} 它是{l} 此为{l} 我选{l} 确实是{l}
"""
RESTATED = tuple(_RESTATED.split())
"""Nothing but the label."""

# label | what is said | reason: good ones, each with something that a careless check takes for a fault
_TRICKY = """
    实物照片||水洗标签露在领口，印着100%棉和手洗符号
    实物照片||瓶身标签撕掉一角，液体渗到纸箱底
    实物照片||吊牌上标注的型号与盒面不同，手指着那一行
    商品页||价格标签¥39贴在主图右下，库存写“仅剩2件”
    商品页||“加入购物车”是黄色，旁边红色按钮写领券购买
    商品页||标题里有“2024新款 iPad 保护壳”，三张预览图横排
    评价页||按“好评”“差评”标签分组，首条附两张试穿照
    评价页||买家追加一句“物流很快，客服也好”，五星
    订单详情页||已发货的蓝条下写承运快递，再下面是应付总额
    订单详情页||底部三个小按钮：退换、查看物流、评价
    订单详情页||支付方式写微信，地址、单号、下单时刻依次排开
    支付页||优惠券已抵20元，还需付¥68，蓝色按钮待点
    支付页||订单号在小字里，大字是¥1,299.00和Face ID图标
    物流页||订单已签收，轨迹最上面写“快件由门卫代收”
    物流页||退回件的轨迹，最新停在义乌集散点
    购物车页||结算栏写“已优惠15元”，三双袜子都打了勾
    退款页||写着“退货物流已签收”，金额¥76原路返还
    退款页||很明显看到“售后关闭”灰字，钱数归零
    优惠券页||满300减40那张标着“商品页可用”的小灰字
    规格选择页||加购弹层：iPhone 15/Pro/Max三格，Pro描蓝边
    规格选择页||典型的半屏选项：香味有柚子、雪松、无香三格
    申请退款|用户: 怎么退款/客服: 订单里点申请|用户第一句就是“怎么退款”
    申请退款|用户: 杯子裂了/客服: 可以补发/用户: 不用补，钱退我|杯子裂了也不要补发，只要退钱
    申请退款|用户: 物流太慢，我不等了，取消吧|嫌路上慢，说“不等了，取消吧”
    申请退款|用户: 尺码不对，退了算了|因尺码不对说“退了算了”
    反馈破损|用户: 我不申请退款，就跟你们说一声，壶嘴缺口|明说不申请退款，只告知壶嘴有缺口
    反馈破损|用户: 快递摔的吧，盒子瘪了，碗碎两只|盒子瘪、碗碎两只，怀疑快递摔的
    反馈破损|用户: 标签都没拆，鞋面就有个口子|标签没拆鞋面就有口子
    反馈破损|用户: 用法没错啊，一插电就断成两截|强调用法没错，插电后断成两截
    查询物流|用户: 发货三天了，怎么还在长沙|说发出三天仍停长沙
    查询物流|用户: 退款我先不急，包裹到底在哪|“退款先不急”，追问包裹下落
    询问发货时间|用户: 券我领了，哪天能寄|领完券只问哪天寄
    询问发货时间|用户: 标签上写现货，咋还不出库|拿页面“现货”标签质问何时出库
    询问发货时间|用户: 物流信息是空的，你们寄了没|物流信息为空，问到底寄没寄
    询问尺码|用户: 上回退款就是因为小了，这次M够吗|上次因小退掉，这回问M够不够
    询问尺码|用户: 纯棉会缩水吧，是不是要买大点|担心棉缩水，问要不要买大点
    询问材质|用户: 给定做的那款也是牛皮吗|问定做那款是不是也用牛皮
    询问材质|用户: 标注95%聚酯，剩下5%是啥|见标注95%聚酯，追问余下5%
    询问优惠|用户: 现在发货要等，那能不能少十块|以要等为由求少十块
    询问优惠|用户: 两个码都要，打包价多少|两个码一起要，问打包价
    询问用法|用户: 材质我知道了，洗的时候水温多少|料子已清楚，只问水温多少
    询问用法|用户: USB-C口插哪根线，说明书没标|说明书没标，问USB-C口接哪根线
"""
TRICKY = tuple(tuple(line.strip().split("|")) for line in _TRICKY.strip().splitlines())

# label | reason: not Chinese, or only in a word or two
_FOREIGN = """
    商品页|A large photo with the price and Buy Now below
    商品页|The title bar and 页面 show price plus two buttons
    商品页|商品の大きな写真と価格が表示されている
    商品页|Red price tag, sold count, cart button
    商品页|赤い値段と購入ボタンが下にある
    商品页|main pic 是一双 white sneakers, ¥199, 包邮 tag
    规格选择页|A sheet with colour chips and size buttons
    规格选择页|popup 弹出 where you pick Size and Color
    规格选择页|サイズと色を選ぶポップアップです
    规格选择页|Quantity stepper and a single Confirm button
    规格选择页|在庫数と数量の＋－ボタンが出ている
    订单详情页|Order number, address and amount paid are listed
    订单详情页|It lists 订单 number and delivery address
    订单详情页|注文番号とお届け先が並んでいます
    订单详情页|Nomor pesanan dan alamat ditampilkan
    订单详情页|주문번호와 배송지가 나와 있습니다
    支付页|A big amount and three ways to pay
    支付页|shows amount ¥88 和 a keypad for the password
    支付页|真ん中に金額、下に支払いボタンがある
    支付页|Six boxes for the PIN above a number pad
    支付页|暗証番号を入れる六つの枠がある
    支付页|Payment done: green tick, finish button
    物流页|Timeline of a parcel, last stop Hangzhou
    物流页|parcel timeline, 最新 stop is the sorting hub
    物流页|荷物の追跡履歴が縦に並ぶ画面
    物流页|Kuai di hai zai lu shang, mei you dao
    物流页|배송 조회 화면에 세 단계가 보입니다
    物流页|Signed at the door on 5 June, courier named
    购物车页|Items with checkboxes and a total at the bottom
    购物车页|checkbox list with 合计 total at bottom
    购物车页|チェックボックスと合計金額が見える
    购物车页|Two shops, each with its subtotal
    购物车页|店ごとに商品がまとめられている
    评价页|Stars, avatars and buyers' comments
    评价页|user comments with five stars 很多 photos
    评价页|星の数と購入者のコメントが見えます
    评价页|Photos from buyers under their remarks
    评价页|写真つきの口コミが三件あります
    评价页|评分 4.8 out of five, sorted by newest reviews
    退款页|Progress dots and the money to be returned
    退款页|refund 进度 bar at step two, money back soon
    退款页|返金の進み具合と金額が書いてある
    退款页|Montant remboursé et étapes affichés
    退款页|返金先の口座が下に書かれている
    退款页|Refund closed by seller, evidence photos wanted
    实物照片|A cup on a wooden table, shot by a phone camera
    实物照片|real photo of 杯子 on a table, no UI at all
    实物照片|机の上のカップを撮った写真です
    实物照片|Crushed cardboard box lying on the floor
    实物照片|つぶれた箱が床に置かれている
    实物照片|ひびの入ったガラス瓶を手で持っている
    优惠券页|Four vouchers with Claim buttons
    优惠券页|three coupons, 满减 vouchers with claim button
    优惠券页|クーポンが三枚、受け取るボタンもある
    优惠券页|Ticket shapes with amounts in red
    优惠券页|有効期限つきの割引券が並ぶ
    询问发货时间|The user asks when it will be shipped
    询问发货时间|user asks “今天能发吗”, wants it shipped today
    询问发货时间|いつ発送されるのかを聞いています
    询问发货时间|Paid three days ago and nothing was sent yet
    询问发货时间|支払い後三日、まだ送られていない
    询问尺码|He weighs 70 kg and wonders which size to take
    询问尺码|the buyer asks 码数 for 70 kg, M or L
    询问尺码|体重を言って、どのサイズか質問している
    询问尺码|Chima pian da hai shi pian xiao, ta wen
    询问尺码|크기가 작은지 큰지 물어봅니다
    询问尺码|wants a Size chart 表 before buying the dress
    询问材质|She wants to know whether it is pure cotton
    询问材质|asks if the fabric is 纯棉 or polyester
    询问材质|綿かどうか、素材について聞いている
    询问材质|Is the lining leather or plastic, he wonders
    询问材质|本物の革かどうか気にしている
    申请退款|The customer wants the money back
    申请退款|customer says 不想要了 and wants money back
    申请退款|もういらないので返金してほしいと言う
    申请退款|Wrong model bought, so he would return it
    申请退款|間違えて買ったので返したいそうだ
    反馈破损|The cup arrived with a crack in its rim
    反馈破损|cup arrived broken, 裂了 on one side
    反馈破损|届いたときに割れていたと伝えている
    反馈破损|Экран разбит, коробка помята
    反馈破损|箱がつぶれて中身も曲がっていた
    反馈破损|zipper 掉了, buyer sent two photos of it
    询问优惠|Asks for a voucher or a lower price
    询问优惠|asks whether 有券 or any discount for two
    询问优惠|割引やクーポンがあるか聞いている
    询问优惠|Old customer hoping for a better deal
    询问优惠|まとめ買いで安くなるか聞いた
    查询物流|Where is my parcel? No update for three days
    查询物流|parcel stuck, no update 三天 since Wuhan
    查询物流|荷物が今どこにあるか尋ねている
    查询物流|Signed for, yet she never received it
    查询物流|受け取り済みなのに届いていない
    查询物流|宅配業者に電話がつながらないとのこと
    询问用法|He cannot pair the earphones and asks how
    询问用法|asks 怎么 to pair the earphones via Bluetooth
    询问用法|使い方がわからず、ボタンを聞いている
    询问用法|Which key must be held to switch it on
    询问用法|初めて使う前に洗うのか質問した
    询问用法|manual is in English, wonders what Mode does
"""
FOREIGN = tuple(tuple(line.strip().split("|")) for line in _FOREIGN.strip().splitlines())
