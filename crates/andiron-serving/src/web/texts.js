// All texts of the page, in English and Korean, and how elements follow the chosen language.

export const LANGUAGES = { en: "English", ko: "한국어" };

const STORED = "andiron.language";

const TEXTS = {
  en: {
    // The page.
    skip: "Skip to the content", connecting: "connecting…", notConnected: "not connected", modelCount: "models: {count}",
    language: "Language", theme: "Colours", theme_auto: "Auto", theme_light: "Light", theme_dark: "Dark",
    model: "Model", contextLength: "{count} tokens of context",
    noModels: "Nothing to do here yet", noModelsHint: "This server has no model that this page can use.",
    key: "API key", keyLabel: "Key of this server", keyHint: "Kept until this tab is closed, and sent to this server only.",
    keyUse: "Use this key", keyForget: "Forget it",
    tab_chat: "Chat", tab_write: "Write", tab_translate: "Translate", tab_summarize: "Summarize", tab_classify: "Classify",
    tab_answer: "Answer", tab_search: "Search", tab_entities: "Entities", tab_fill: "Fill in", tab_attention: "Attention",

    // Common.
    close: "Close", cancel: "Cancel", save: "Save", apply: "Apply", copy: "Copy", copied: "Copied", delete: "Delete", edit: "Edit",
    stop: "Stop", stopped: "stopped", again: "Try again", done: "Done", text: "Text",
    keysTask: "Ctrl+Enter runs, Escape stops.", default: "model's own", random: "random", none: "none",
    sampling: "Sampling", temperature: "Temperature", topP: "Top-p", maxTokens: "Max. tokens", seed: "Seed",
    stops: "Stop at", stopsHint: "Several texts are separated by |, and \\n is a line break.",
    probabilities: "Token probabilities", probabilitiesHint: "Shows how sure the model was of each token, and what else was likely.",
    tokensLabel: "Tokens; arrow keys move between them", showTokens: "Show token probabilities",
    tokenCount: "{count} tokens", tokenRate: "{rate} tokens/s", tokenRateAfter: " · {rate} tokens/s",
    reachedLimit: "cut off at the limit", reachedLimitAfter: " · cut off at the limit",

    // Errors.
    errorNetwork: "The server cannot be reached.", errorKey: "The server wants an API key.",
    errorTooLong: "This is too long for the model.", errorTooLarge: "This is too large for the server.",
    errorBusy: "The server is busy.", errorUnavailable: "The server is not ready.", errorTimeout: "The server took too long.",
    errorServer: "The server failed.", errorRefused: "The server refused this.", errorPage: "This did not work.",
    errorWait: "Try again in {seconds} s.",

    // Chat.
    chatTitle: "What shall we talk about?", chatHint: "Conversations stay in this browser.",
    chatExample1: "Explain why the sky is blue, in three sentences.", chatExample2: "Write a haiku about a fireplace.",
    chatExample3: "Compare tea and coffee in a small table.",
    conversation: "Conversation", conversations: "Conversations", newChat: "New chat", untitled: "Untitled",
    noConversations: "No conversations yet.",
    export: "Export", import: "Import", importDone: "conversations imported: {count}", importTooLarge: "This file is too large.",
    importUnreadable: "This file holds no conversations.",
    message: "Message", messageHint: "Write a message…", send: "Send", keysChat: "Enter sends, Shift+Enter starts a line, Escape stops.",
    waiting: "Waiting for the answer", answered: "The answer is complete", regenerate: "Answer again", saveSend: "Save and send",
    role_user: "You", role_assistant: "Model", role_tool: "Tool",
    settings: "Settings", system: "System prompt", systemHint: "How the model should behave",
    tools: "Tools", toolsJson: "Tools, as JSON", toolsHint: "A list as in OpenAI's API. Calls are shown, and you give the results.",
    toolsNoList: "This is no list.", toolCall: "Calls", toolResult: "Result", reasoning: "Reasoning", sendResults: "Send results",

    // Write.
    writeTitle: "Begin a text", writeEmpty: "The model continues it, word for word.", writeHint: "Once upon a time…",
    writeExample1: "Once upon a time, in a village by the sea,", writeExample2: "The three most important rules of cooking are",
    prompt: "Beginning", continueText: "Continue", useAsPrompt: "Go on from here",

    // Tasks.
    translateTitle: "Translate a text", translateHint: "With alternatives where the model has them.", translateAction: "Translate",
    translateExample: "The house by the lake is small, but it has a large garden.",
    from: "From", to: "To", swap: "Swap", alternatives: "Alternatives",
    summarizeTitle: "Summarize a text", summarizeHint: "Long texts become short ones.", summarizeAction: "Summarize",
    summarizeExample: "The Amazon rainforest covers most of the Amazon basin in South America. The basin has an area of seven million square kilometres, of which the forest covers five and a half million. The region belongs to nine nations, and the greater part of the forest lies in Brazil. It is home to a third of all known species.",
    lengthShare: "{share} of the text's length",
    classifyTitle: "Classify a text", classifyHint: "With the probability of each label.", classifyAction: "Classify",
    classifyExample: "I lost my card on the train and need a new one.",
    answerTitle: "Find an answer", answerHint: "Give a text and ask a question that it answers.", answerAction: "Find",
    answerExample: "Ada Lovelace was born in London in 1815. She wrote the first algorithm for a machine, Charles Babbage's Analytical Engine.",
    answerQuestion: "Where was Ada Lovelace born?", question: "Question", noAnswer: "No answer in this text.", certainty: "{score} sure",
    entitiesTitle: "Mark names", entitiesHint: "People, places and other things that a text speaks of.", entitiesAction: "Mark",
    entitiesExample: "Marie Curie was born in Warsaw and worked in Paris.", noEntities: "Nothing was found.",
    fillTitle: "Fill in words", fillHint: "Write ___ where a word is missing.", fillAction: "Fill in", insertMask: "Insert a gap",
    fillExample: "The capital of France is ___.", maskNumber: "Gap {number}",

    // Search.
    searchTitle: "Search by meaning", searchHint: "Paste documents and ask: what fits best comes first.", searchAction: "Search",
    documents: "Documents", documentsHint: "A blank line separates two documents; without any, each line is one.", query: "Question",
    searchDocumentsHint: "Paste texts here…", searchExample: "Try an example", searchExampleQuery: "How do I keep warm?",
    searchExampleDocuments: "An andiron holds the logs in a fireplace.\n\nThe stock market rose on Tuesday.\n\nA wool blanket helps on cold nights.\n\nBees dance to tell the others where flowers are.",

    // Attention.
    attentionTitle: "Look at attention", attentionHint: "Which word looks at which, in every layer and head.", attentionAction: "Show",
    attentionExample: "The cat sat on the mat because it was tired.",
    attentionTarget: "Target text", attentionTargetHint: "Empty: what the model generates",
    attentionKind: "Who looks at whom", kind_text: "Text", kind_source: "Source", kind_target: "Target", kind_cross: "Target to source",
    layer: "Layer", layerOf: "{layer} of {layers}", heads: "Heads", meanOfHeads: "Mean of all heads", headNumber: "Head {number}",
    lineTitle: "Words", lineHint: "Choose a word: the stronger the colour of another, the more it looks there.",
    lineWords: "Words of the text", lineQueries: "Words of the target", lineKeys: "Words of the source",
    pictureTitle: "All words", attentionPicture: "Picture of all probabilities", attentionPictureOf: "Rows look at columns; the row of “{word}” is framed.",
  },
  ko: {
    skip: "본문으로 건너뛰기", connecting: "연결하는 중…", notConnected: "연결되지 않음", modelCount: "모델 {count}개",
    language: "언어", theme: "화면 색", theme_auto: "자동", theme_light: "밝게", theme_dark: "어둡게",
    model: "모델", contextLength: "컨텍스트 {count} 토큰",
    noModels: "아직 할 수 있는 일이 없습니다", noModelsHint: "이 페이지에서 쓸 수 있는 모델이 서버에 없습니다.",
    key: "API 키", keyLabel: "이 서버의 키", keyHint: "이 탭을 닫을 때까지만 보관하며, 이 서버에만 보냅니다.",
    keyUse: "이 키 사용", keyForget: "키 지우기",
    tab_chat: "대화", tab_write: "이어쓰기", tab_translate: "번역", tab_summarize: "요약", tab_classify: "분류",
    tab_answer: "답 찾기", tab_search: "검색", tab_entities: "개체명", tab_fill: "빈칸 채우기", tab_attention: "어텐션",

    close: "닫기", cancel: "취소", save: "저장", apply: "적용", copy: "복사", copied: "복사했습니다", delete: "삭제", edit: "고치기",
    stop: "멈추기", stopped: "멈춤", again: "다시 시도", done: "끝났습니다", text: "글",
    keysTask: "Ctrl+Enter로 실행, Esc로 멈춥니다.", default: "모델 설정", random: "무작위", none: "없음",
    sampling: "샘플링", temperature: "온도", topP: "Top-p", maxTokens: "최대 토큰 수", seed: "시드",
    stops: "멈출 글자", stopsHint: "여러 개는 |로 나누고, \\n은 줄바꿈입니다.",
    probabilities: "토큰 확률", probabilitiesHint: "모델이 각 토큰을 얼마나 확신했는지, 다른 후보는 무엇이었는지 보여 줍니다.",
    tokensLabel: "토큰: 화살표 키로 옮겨 다닙니다", showTokens: "토큰 확률 보기",
    tokenCount: "{count} 토큰", tokenRate: "초당 {rate} 토큰", tokenRateAfter: " · 초당 {rate} 토큰",
    reachedLimit: "한도에서 잘림", reachedLimitAfter: " · 한도에서 잘림",

    errorNetwork: "서버에 연결할 수 없습니다.", errorKey: "이 서버는 API 키가 필요합니다.",
    errorTooLong: "모델이 읽기에는 너무 깁니다.", errorTooLarge: "서버가 받기에는 너무 큽니다.",
    errorBusy: "서버가 바쁩니다.", errorUnavailable: "서버가 아직 준비되지 않았습니다.", errorTimeout: "시간이 너무 오래 걸렸습니다.",
    errorServer: "서버에서 오류가 났습니다.", errorRefused: "서버가 요청을 받지 않았습니다.", errorPage: "잘되지 않았습니다.",
    errorWait: "{seconds}초 뒤에 다시 시도하세요.",

    chatTitle: "무슨 이야기를 할까요?", chatHint: "대화는 이 브라우저에만 저장됩니다.",
    chatExample1: "하늘이 왜 파란지 세 문장으로 설명해 줘.", chatExample2: "벽난로에 관한 짧은 시를 써 줘.",
    chatExample3: "차와 커피를 작은 표로 비교해 줘.",
    conversation: "대화", conversations: "대화 목록", newChat: "새 대화", untitled: "제목 없음", noConversations: "아직 대화가 없습니다.",
    export: "내보내기", import: "가져오기", importDone: "대화 {count}개를 가져왔습니다", importTooLarge: "파일이 너무 큽니다.",
    importUnreadable: "대화가 들어 있는 파일이 아닙니다.",
    message: "메시지", messageHint: "메시지를 쓰세요…", send: "보내기", keysChat: "Enter로 보내고, Shift+Enter로 줄을 바꾸고, Esc로 멈춥니다.",
    waiting: "답을 기다리는 중", answered: "답변이 끝났습니다", regenerate: "다시 답하기", saveSend: "저장하고 보내기",
    role_user: "나", role_assistant: "모델", role_tool: "도구",
    settings: "설정", system: "시스템 프롬프트", systemHint: "모델이 어떻게 답할지",
    tools: "도구", toolsJson: "도구(JSON)", toolsHint: "OpenAI API와 같은 목록입니다. 호출을 보여 주고, 결과는 직접 입력합니다.",
    toolsNoList: "목록이 아닙니다.", toolCall: "호출", toolResult: "결과", reasoning: "추론", sendResults: "결과 보내기",

    writeTitle: "글을 시작해 보세요", writeEmpty: "모델이 뒤를 이어 씁니다.", writeHint: "옛날 옛적에…",
    writeExample1: "옛날 옛적, 바닷가 마을에", writeExample2: "요리에서 가장 중요한 세 가지 규칙은",
    prompt: "첫머리", continueText: "이어쓰기", useAsPrompt: "여기서부터 계속",

    translateTitle: "글을 번역합니다", translateHint: "다른 번역도 있으면 함께 보여 줍니다.", translateAction: "번역",
    translateExample: "호숫가의 집은 작지만 정원이 넓다.",
    from: "원문 언어", to: "번역 언어", swap: "바꾸기", alternatives: "다른 번역",
    summarizeTitle: "글을 요약합니다", summarizeHint: "긴 글을 짧게 줄입니다.", summarizeAction: "요약",
    summarizeExample: "아마존 열대우림은 남아메리카 아마존 분지의 대부분을 덮고 있다. 분지의 넓이는 700만 제곱킬로미터이고, 그 가운데 550만 제곱킬로미터가 숲이다. 이 지역은 아홉 나라에 걸쳐 있으며 숲의 대부분은 브라질에 있다. 알려진 생물 종의 3분의 1이 이곳에 산다.",
    lengthShare: "원문 길이의 {share}",
    classifyTitle: "글을 분류합니다", classifyHint: "각 분류의 확률을 보여 줍니다.", classifyAction: "분류",
    classifyExample: "기차에서 카드를 잃어버려서 새 카드가 필요해요.",
    answerTitle: "답을 찾습니다", answerHint: "글을 넣고, 그 글에 답이 있는 질문을 하세요.", answerAction: "찾기",
    answerExample: "에이다 러브레이스는 1815년 런던에서 태어났다. 그는 찰스 배비지의 해석 기관을 위한 최초의 알고리즘을 썼다.",
    answerQuestion: "에이다 러브레이스는 어디에서 태어났나?", question: "질문", noAnswer: "이 글에는 답이 없습니다.", certainty: "확신 {score}",
    entitiesTitle: "이름을 표시합니다", entitiesHint: "글에 나오는 사람, 장소 등을 찾습니다.", entitiesAction: "표시",
    entitiesExample: "마리 퀴리는 바르샤바에서 태어나 파리에서 일했다.", noEntities: "찾은 것이 없습니다.",
    fillTitle: "빈칸을 채웁니다", fillHint: "단어가 빠진 자리에 ___를 쓰세요.", fillAction: "채우기", insertMask: "빈칸 넣기",
    fillExample: "프랑스의 수도는 ___이다.", maskNumber: "빈칸 {number}",

    searchTitle: "뜻으로 검색합니다", searchHint: "문서를 붙여 넣고 물어보면 가장 알맞은 것부터 보여 줍니다.", searchAction: "검색",
    documents: "문서", documentsHint: "빈 줄로 문서를 나눕니다. 빈 줄이 없으면 한 줄이 한 문서입니다.", query: "질문",
    searchDocumentsHint: "글을 붙여 넣으세요…", searchExample: "예시 보기", searchExampleQuery: "어떻게 하면 따뜻하게 지낼까?",
    searchExampleDocuments: "장작 받침은 벽난로 안의 장작을 받쳐 준다.\n\n화요일에 주가가 올랐다.\n\n추운 밤에는 양털 담요가 좋다.\n\n꿀벌은 춤을 추어 꽃이 있는 곳을 알린다.",

    attentionTitle: "어텐션을 들여다봅니다", attentionHint: "층과 헤드마다 어떤 단어가 어떤 단어를 보는지 보여 줍니다.", attentionAction: "보기",
    attentionExample: "고양이는 피곤해서 매트 위에 앉았다.",
    attentionTarget: "목표 글", attentionTargetHint: "비우면 모델이 생성한 글",
    attentionKind: "누가 누구를 보는지", kind_text: "글", kind_source: "원문", kind_target: "목표", kind_cross: "목표에서 원문으로",
    layer: "층", layerOf: "{layers}개 중 {layer}번째", heads: "헤드", meanOfHeads: "모든 헤드의 평균", headNumber: "헤드 {number}",
    lineTitle: "단어", lineHint: "단어를 고르면, 그 단어가 많이 보는 단어일수록 색이 진해집니다.",
    lineWords: "글의 단어", lineQueries: "목표의 단어", lineKeys: "원문의 단어",
    pictureTitle: "모든 단어", attentionPicture: "모든 확률의 그림", attentionPictureOf: "행이 열을 봅니다. ‘{word}’의 행에 테두리가 있습니다.",
  },
};

let chosen = localStorage.getItem(STORED);
if (!(chosen in TEXTS)) chosen = navigator.languages.map(code => code.split("-")[0]).find(code => code in TEXTS) ?? "en";
document.documentElement.lang = chosen;

export function language() {
  return chosen;
}

export function setLanguage(code) {
  chosen = code;
  localStorage.setItem(STORED, code);
  document.documentElement.lang = code;
  applyTexts(document);
}

/** A text in the chosen language, with `{name}` replaced by values. */
export function translate(key, values = {}) {
  const text = TEXTS[chosen][key] ?? TEXTS.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** The places of an element that a text can have. */
const PLACES = { t: "data-t", tLabel: "data-t-label", tTitle: "data-t-title", tPlaceholder: "data-t-placeholder" };

/** Gives a place of an element a text: a key, or an object of a key and values. It follows the language from then on. */
export function bind(node, place, text) {
  if (text === null || text === undefined) return;
  node.setAttribute(PLACES[place], typeof text === "string" ? text : JSON.stringify(text));
  apply(node, place);
}

export function applyTexts(root) {
  for (const [place, attribute] of Object.entries(PLACES)) {
    for (const node of root.querySelectorAll(`[${attribute}]`)) apply(node, place);
  }
}

function apply(node, place) {
  const bound = node.getAttribute(PLACES[place]);
  const { key, ...values } = bound.startsWith("{") ? JSON.parse(bound) : { key: bound };
  const text = translate(key, values);
  if (place === "t") node.textContent = text;
  else if (place === "tPlaceholder") node.placeholder = text;
  else if (place === "tTitle") node.title = text;
  else {
    node.setAttribute("aria-label", text);
    if (node.tagName === "BUTTON") node.title = text;
  }
}
