"""Turn a picture into the 28x28 image of its digit, or into the images of all that may be a digit of its numbers.

A picture becomes a digit in these steps. ``mnist_form`` takes them in this order:

    prepare       the entry: as the model wants it, the steps below or only the whole picture in 28x28 pixels
    header        what decoding will cost, from the first bytes of the file
    decode        the bytes become grey values and a few colours
    page          a large picture stays with Pillow, and becomes grey values part by part
    close_up      where the ink lies on the reduced page, and a close-up of it
    ink           how much each pixel of the page or the close-up stands out from the paper
    pieces        the connected pieces of the ink: specks are removed, digits are counted
    normalize     strokes broad enough, the digit shrunk to 20x20 and centred in 28x28
    doubt         how little the picture looks like ink on paper
    mnist_form    the digit, and other readings of the picture if something may surround the digit

The other readings, of which ``serving/inference/readings.py`` chooses one, and what is done if the page seems empty:

    dots          the dots of a dotted digit, joined to strokes
    neighbours    without the pieces of ink beside the digit or around it
    surroundings  without lines, shadows and stains, and without the desk around a sheet
    sheet         a small sheet on the page, such as a note
    colours       ink that differs from the paper in its colour only

A page becomes numbers in these steps, after the same ``header``, ``decode`` and ``page``. ``number_form`` takes them:

    page_ink      how much each pixel stands out from the paper, on a page of up to 1024 pixels, with the next four
    paper         the brightness of the paper, also in a shadow
    rules         without the lines of ruled or squared paper
    stains        without long weak lines, such as the ring of a cup
    remnants      without what is left of broad things, such as a finger
    grain         the strokes of a pencil, at a size at which they are whole
    lines         the lines of digits, turned upright; first without the next three
    clutter       circles, underlines, dirt, a desk at the border
    fields        the printed fields of a form
    shapes        punched holes, buttons, a pen on the paper
    cuts          a line, cut into parts that are smaller than a digit
    signs         parts that may be a slash or a bracket
    small_signs   parts that may be a colon, a plus, a times or an equals sign
    number_form   groups of parts that may be a digit, each brought to 28x28 by ``normalize``

The network judges these groups. ``serving/inference/path.py`` chooses those that make up the line, and
``serving/inference/numbers.py`` returns the numbers.

Both use these files:

    signatures    which format a file has, and what to do if it is not read here
    containers    the parts of a picture file, of which only those with the pixels are decoded
    desk          a sheet, and the desk around it
    morphology    filters of small windows
    work          the limit on the work for a page of numbers
    process       decodes large pictures in a process that the service can kill
    pixels        the values of an array become bytes, for arrays in place of files
"""
